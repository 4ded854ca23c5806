"""Taking the gradient away from the parameters, along the residual."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmc_jax.core import Tree, with_hooks
from gmc_jax.transforms._learning_rate import rate_at
from gmc_jax.transforms.error_feedback import ErrorFeedbackState
from gmc_jax.utils import checks
from gmc_jax.utils.described import described
from gmc_jax.utils.jaxprs import mark_updated
from gmc_jax.utils.trees import find, upcast, update_unmasked


@with_hooks
class DetachedState(NamedTuple):
    """The state of a detached transformation.

    Attributes:
      step: int32, updates so far.
      scale: how far along the residual the next gradient is taken, with its sign.
      inner: the state of the inner transformation; it holds the residual.
    """

    step: jax.Array
    scale: jax.Array
    inner: Tree

    def query(self, params: Tree) -> Tree:
        """The point to take the next gradient at: params + scale * residual."""
        return along(params, feedback_in(self.inner, "detached"), self.scale)


@described
def detached(
    inner: optax.GradientTransformation,
    detach: float,
    learning_rate: optax.ScalarOrSchedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Takes each worker's next gradient at its own point along its residual.

    With a learning rate the residual e_k is in units of gradients (GMC+) and the point
    is `params - detach * lr_t * e_k`; without one it is in units of steps, signed as
    updates are (DEF), and the point is `params + detach * e_k`. The loop asks
    `gmc_jax.query(opt_state, params)` for it.

    Args:
      inner: an `error_feedback`, or what contains exactly one.
      detach: how much of the residual is anticipated, lambda in the papers, in [0, 1].
      learning_rate: the rate of the step whose gradient is asked for: a number or a
        schedule. Under `optax.inject_hyperparams` the next rate is not known in
        advance, and the last one is used.

    Returns:
      A transformation that passes updates through `inner`, with `DetachedState`.

    Raises:
      TypeError: if `inner` is no transformation.
      ValueError: if `detach` does not lie in [0, 1], or a rate is negative or not
        finite; from `init` if `inner` does not contain exactly one `error_feedback`.

    Guarantees:
      With `detach=0` it is `inner`.

    References:
      Xu and Huang, "Detached Error Feedback for Distributed SGD with Random
      Sparsification", ICML 2022; Algorithm 2 of Shi et al., arXiv:1905.12948.
    """
    checks.transformation(inner=inner)
    checks.proportion(detach=detach)
    if learning_rate is not None:
        checks.learning_rate(learning_rate=learning_rate)
    inner = optax.with_extra_args_support(inner)

    def scale_at(step: jax.Array) -> jax.Array:
        sign = 1 if learning_rate is None else -1
        return sign * detach * rate_at(learning_rate, step)

    def init(params):
        inner_state = inner.init(params)
        feedback_in(inner_state, "detached")
        step = jnp.zeros((), jnp.int32)
        return DetachedState(step, scale_at(step), inner_state)

    def update(updates, state, params=None, **extra_args):
        updates, inner_state = inner.update(updates, state.inner, params, **extra_args)
        step = jnp.asarray(optax.safe_increment(state.step))
        return updates, mark_updated(DetachedState(step, scale_at(step), inner_state))

    return optax.GradientTransformationExtraArgs(init, update)


def feedback_in(state: Tree, caller: str) -> ErrorFeedbackState:
    """The state of the one `error_feedback` inside; else an error that names both."""
    found = find(state, ErrorFeedbackState)
    if len(found) != 1:
        raise ValueError(
            f"`{caller}` needs the residual of one `error_feedback`, and `inner` "
            f"contains {len(found)}. Pass `error_feedback(channel)`, or what contains "
            "it, as `inner`."
        )
    return found[0]


def along(params: Tree, feedback: ErrorFeedbackState, scale: jax.Array) -> Tree:
    """Moves by scale * residual where there is a residual; dtypes are the params'."""

    def move(leaf: jax.Array, residual: jax.Array) -> jax.Array:
        point = upcast(leaf) + scale.astype(residual.dtype) * residual
        return point.astype(jnp.result_type(leaf))

    try:
        return update_unmasked(move, params, feedback.residual)
    except ValueError as error:
        raise ValueError(
            "the residual does not have the structure of `params`, along which it is "
            f"to move them. {_remedy(params, feedback.residual)}"
        ) from error


def _remedy(params: Tree, residual: Tree) -> str:
    shapes = [
        list(map(jnp.shape, jax.tree.leaves(tree))) for tree in (params, residual)
    ]
    if shapes[0] == shapes[1]:
        return (
            "Their leaves are alike, only the nodes around them differ. Pass both as "
            "`tx.update` has them; for a model of Flax NNX that is "
            "`nnx.as_pure((nnx.state(model), optimizer.opt_state))`."
        )
    return (
        "Pass the parameters that `tx.init` was given. Leave out what changes their "
        "structure on the way to `error_feedback`, such as `optax.flatten`."
    )
