"""DGC: each worker's own momentum, accumulated until it is sent."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmc_jax.core import Channel, Tree
from gmc_jax.transforms.error_feedback import ErrorFeedbackState, average_with_residual
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.trees import times, upcast_floating, zeros_to_accumulate


class MomentumCorrectionState(NamedTuple):
    """The state of momentum correction; it differs between workers.

    Attributes:
      momentum: u_k, in the units of the updates; float32 for 16-bit trees. With
        Nesterov's momentum it is decay times the buffer: its share in the next step.
      feedback: the state of the error feedback behind it; the residual is v_k.
    """

    momentum: Tree
    feedback: ErrorFeedbackState


@call_repr
def momentum_correction(
    channel: Channel,
    decay: float,
    factor_masking: bool = True,
    nesterov: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Applies a local momentum, accumulates it, and clears it where it was sent.

        u_k <- decay * u_k + g_k;  v_k <- v_k + u_k;  out = mean over k of C(v_k)
        v_k <- v_k - C(v_k);  u_k <- 0 where C(v_k) sent an entry

    These are the paper's momentum correction, local gradient accumulation and momentum
    factor masking.

    Nesterov's momentum replaces the first two steps:

        u_k <- decay * (u_k + g_k);  v_k <- v_k + u_k + g_k

    Without masking u_k is never cleared: it is `error_feedback` behind
    `optax.trace(decay, nesterov)`. Values travel as in `error_feedback`: they are
    rounded to the dtypes of the parameters before a compressor selects.

    Args:
      channel: averages v_k.
      decay: the momentum, in [0, 1).
      factor_masking: whether momentum is cleared where it was just sent.
      nesterov: whether the momentum is Nesterov's, as in `optax.trace`.

    Returns:
      A transformation in any units, with `MomentumCorrectionState`.

    Raises:
      TypeError: if `channel` is not a channel.
      ValueError: if `decay` is not in [0, 1).

    Guarantees:
      Through `exact()` with masking it is the mean of the updates, times 1 + decay with
        `nesterov`.
      Through `exact()` without masking it is the mean of
        `optax.trace(decay, nesterov)`.

    References:
      Lin et al., "Deep Gradient Compression", ICLR 2018, Algorithm 1 and section 3.2.
    """
    checks.channel(channel=channel)
    checks.decay(decay=decay)
    checks.flag(factor_masking=factor_masking, nesterov=nesterov)

    def init(params):
        return MomentumCorrectionState(
            zeros_to_accumulate(params),
            ErrorFeedbackState(zeros_to_accumulate(params), channel.init(params)),
        )

    def update(updates, state, params=None, **extra_args):
        del extra_args
        like, updates = updates if params is None else params, upcast_floating(updates)
        if nesterov:
            momentum = jax.tree.map(
                lambda u, g: times(decay, u + g), state.momentum, updates
            )
            added = optax.tree.add(momentum, updates)
        else:
            momentum = jax.tree.map(
                lambda u, g: times(decay, u) + g, state.momentum, updates
            )
            added = momentum
        out, feedback = average_with_residual(channel, added, state.feedback, like)
        if factor_masking:
            momentum = jax.tree.map(
                _masked,
                momentum,
                updates,
                added,
                state.feedback.residual,
                feedback.residual,
            )
        return out, MomentumCorrectionState(momentum, feedback)

    return optax.GradientTransformationExtraArgs(init, update)


def _masked(
    momentum: jax.Array,
    update: jax.Array,
    added: jax.Array,
    before: jax.Array,
    after: jax.Array,
) -> jax.Array:
    """Clears momentum where an entry was sent: where before + added is not after.

    XLA computes `added` again in each kernel that needs it, in some by a fused
    multiply-add and in others not. So an entry that was not sent may differ in its last
    bits. A difference within this rounding does not count as sent.
    """
    magnitude = jnp.abs(update) + jnp.abs(added) + jnp.abs(before)
    rounding = 4 * jnp.finfo(magnitude.dtype).eps * magnitude
    return jnp.where(jnp.abs(before + added - after) <= rounding, momentum, 0)
