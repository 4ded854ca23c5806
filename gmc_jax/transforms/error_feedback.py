"""Error feedback: what was lost is sent later."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmc_jax.core import Channel, Tree, with_hooks
from gmc_jax.transforms._average_in_dtype import average_in_dtype
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.jaxprs import mark_updated
from gmc_jax.utils.trees import (
    find,
    times,
    upcast,
    upcast_floating,
    update_unmasked,
    zeros_to_accumulate,
)


@with_hooks
class ErrorFeedbackState(NamedTuple):
    """The state of error feedback.

    Attributes:
      residual: what this worker has not sent yet, in the units of the updates; float32
        for 16-bit trees. It differs between workers.
      channel: the state of the channel.
    """

    residual: Tree
    channel: Tree

    def conserved(self) -> Tree:
        """The residual is still to be sent."""
        return self.residual, self.channel


@call_repr
def error_feedback(
    channel: Channel, decay: float = 1.0
) -> optax.GradientTransformationExtraArgs:
    """Adds the residual to the updates before the channel averages them.

        p_k = decay * e_k + u_k;  out = mean over k of C(p_k);  e_k <- p_k - C(p_k)

    Behind a learning rate the residual is in units of steps (EF-SGD). In front of the
    learning rate it is in units of gradients (GMC).

    Values travel in the dtypes of the parameters, or of the updates where `update` is
    called without parameters. The residual keeps what rounding to these dtypes loses.
    Rounding comes first, and a compressor selects among the rounded values: of two
    values that round to the same 16 bits, `top_k` sends the one with the lower index,
    whichever was larger.

    Args:
      channel: averages the updates. Through `exact()` the residual holds nothing but
        what rounding to 16-bit parameters loses.
      decay: what the residual is multiplied by before it is added, in [0, 1]. Below 1
        old residuals fade, as in SparseLoCo. With 0 what is lost is never sent.

    Returns:
      A transformation in any units, with `ErrorFeedbackState`. Its updates are the
      average over workers, in float32 for 16-bit trees. Put an optimizer of optax that
      follows it into `with_float32_state`.

    Raises:
      TypeError: if `channel` is not a channel.
      ValueError: if `decay` is not in [0, 1].

    Guarantees:
      With `decay=1`, in the mean over workers, the residual and the sum of all outputs
      together grow by u_k at each step: no part of any update is lost. Where the
      channel has a delay, what it has in flight belongs to them.
      In general the mean over workers of the new residual and the output is that of
      decay * e_k + u_k.

    References:
      Seide et al., "1-Bit Stochastic Gradient Descent", 2014; Stich, Cordonnier and
      Jaggi, "Sparsified SGD with Memory", 2018; Karimireddy et al., "Error Feedback
      Fixes SignSGD", 2019.
    """
    checks.channel(channel=channel)
    checks.proportion(decay=decay)

    def init(params):
        return ErrorFeedbackState(zeros_to_accumulate(params), channel.init(params))

    def update(updates, state, params=None, **extra_args):
        del extra_args
        like = updates if params is None else params
        owed = jax.tree.map(partial(times, decay), state.residual)
        state = ErrorFeedbackState(owed, state.channel)
        return average_with_residual(channel, upcast_floating(updates), state, like)

    return optax.GradientTransformationExtraArgs(init, update)


def average_with_residual(
    channel: Channel, updates: Tree, state: ErrorFeedbackState, like: Tree
) -> tuple[Tree, ErrorFeedbackState]:
    """Averages updates plus residual in the dtypes of `like`; the loss is kept."""
    total = optax.tree.add(updates, state.residual)
    mean, residual, inner = average_in_dtype(channel, total, state.channel, like)
    return mean, mark_updated(ErrorFeedbackState(residual, inner))


def feedback_in(state: Tree, caller: str) -> ErrorFeedbackState:
    """The state of the one `error_feedback` in a state; ValueError unless it is one."""
    found = find(state, ErrorFeedbackState)
    if len(found) != 1:
        raise ValueError(
            f"`inner` of `{caller}` must contain one `error_feedback`, whose residual "
            f"is needed, got {len(found)}. Pass `error_feedback(channel)`, or a "
            "transformation that contains it, as `inner`."
        )
    return found[0]


def shift_by_residual(
    params: Tree, feedback: ErrorFeedbackState, scale: jax.Array
) -> Tree:
    """Adds scale * residual to the parameters, in their dtypes.

    Leaves without a residual, which `optax.masked` left out, stay where they are.
    """

    def shift(leaf: jax.Array, residual: jax.Array) -> jax.Array:
        point = upcast(leaf) + scale.astype(residual.dtype) * residual
        return point.astype(jnp.result_type(leaf))

    try:
        return update_unmasked(shift, params, feedback.residual)
    except ValueError as error:
        raise ValueError(
            "The residual must have the structure of `params`, which it is added to. "
            f"{_remedy(params, feedback.residual)}"
        ) from error


def _remedy(params: Tree, residual: Tree) -> str:
    shapes = [
        list(map(jnp.shape, jax.tree.leaves(tree))) for tree in (params, residual)
    ]
    if shapes[0] == shapes[1]:
        return (
            "Their leaves have the same shapes, and only the nodes around them differ. "
            "Pass both as `tx.update` has them; for a model of Flax NNX that is "
            "`nnx.as_pure((nnx.state(model), optimizer.opt_state))`."
        )
    return (
        "Their leaves have different shapes. Pass the parameters that `tx.init` was "
        "given. Leave out what changes their structure before `error_feedback`, such "
        "as `optax.flatten`."
    )
