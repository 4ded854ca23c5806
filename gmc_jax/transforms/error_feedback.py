"""Error feedback: what was lost is sent later."""

from __future__ import annotations

from typing import NamedTuple

import optax

from gmc_jax.core import Channel, Tree, with_hooks
from gmc_jax.transforms._average_in_dtype import average_in_dtype
from gmc_jax.utils import checks
from gmc_jax.utils.described import described
from gmc_jax.utils.trees import upcast_floating, zeros_to_accumulate


@with_hooks
class ErrorFeedbackState(NamedTuple):
    """The state of error feedback.

    Attributes:
      residual: what this worker still owes, in the units of the updates and, for 16-bit
        trees, in float32; differs between workers.
      channel: the state of the channel.
    """

    residual: Tree
    channel: Tree

    def conserved(self) -> Tree:
        """What is owed is still to be sent."""
        return self.residual, self.channel


@described
def error_feedback(channel: Channel) -> optax.GradientTransformationExtraArgs:
    """Adds what was lost so far to the updates before the channel averages them.

        p_k = e_k + u_k;  out = mean over k of C(p_k);  e_k <- p_k - C(p_k)

    In front of it, a learning rate puts the residual in units of steps (EF-SGD);
    without one it is in units of gradients (GMC).

    Values travel in the dtypes of the parameters (of the updates, where the update is
    called without parameters); what rounding to them loses stays in the residual. They
    are rounded first, and a compressor selects among the rounded ones: of two that
    round to the same 16 bits the lower index is sent, whichever was larger.

    Args:
      channel: what averages; through `exact()` nothing but rounding to 16 bits, where
        parameters have 16, is left to owe.

    Returns:
      A transformation in any units, with `ErrorFeedbackState`. Its updates are those of
      all workers' average, in float32 for 16-bit trees (an optimizer of optax behind it
      then wants to be `with_float32_state`).

    Raises:
      TypeError: if `channel` is no channel.

    Guarantees:
      The mean over workers of residual + out grows by the mean of u_k at each step: no
      part of any update is lost.

    References:
      Seide et al., "1-Bit Stochastic Gradient Descent", 2014; Stich, Cordonnier and
      Jaggi, "Sparsified SGD with Memory", 2018; Karimireddy et al., "Error Feedback
      Fixes SignSGD", 2019.
    """
    checks.channel(channel=channel)

    def init(params):
        return ErrorFeedbackState(zeros_to_accumulate(params), channel.init(params))

    def update(updates, state, params=None, **extra_args):
        del extra_args
        like = updates if params is None else params
        return send_owed(channel, upcast_floating(updates), state, like)

    return optax.GradientTransformationExtraArgs(init, update)


def send_owed(
    channel: Channel, updates: Tree, state: ErrorFeedbackState, like: Tree
) -> tuple[Tree, ErrorFeedbackState]:
    """Averages updates and what is owed in the dtypes of `like`; keeps the loss."""
    owed = optax.tree.add(updates, state.residual)
    mean, residual, inner = average_in_dtype(channel, owed, state.channel, like)
    return mean, ErrorFeedbackState(residual, inner)
