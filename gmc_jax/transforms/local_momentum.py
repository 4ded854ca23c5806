"""Each worker's own momentum, accumulated until it is sent (DGC)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmc_jax import checks
from gmc_jax.core import Channel, Tree
from gmc_jax.transforms.error_feedback import (
    ErrorFeedbackState,
    send_owed,
)
from gmc_jax.trees import widen, zeros_to_accumulate


class LocalMomentumState(NamedTuple):
    """The state of local momentum; both trees differ between workers.

    Attributes:
      momentum: u_k, in the units of the updates and, for 16-bit trees, in float32.
      feedback: the state of the error feedback behind it; its residual is v_k.
    """

    momentum: Tree
    feedback: ErrorFeedbackState


def local_momentum(
    channel: Channel, decay: float, factor_masking: bool = True
) -> optax.GradientTransformationExtraArgs:
    """Momentum correction, local accumulation and momentum factor masking.

        u_k <- decay * u_k + g_k;  v_k <- v_k + u_k;  out = mean over k of C(v_k)
        v_k <- v_k - C(v_k);  u_k <- 0 where something of v_k was sent

    Without masking the last step is left out, and it is error feedback behind
    `optax.trace`.

    Args:
      channel: what averages.
      decay: the momentum, in [0, 1).
      factor_masking: whether momentum is cleared where it was just sent.

    Returns:
      A transformation in any units, with `LocalMomentumState`.

    Raises:
      ValueError: if `decay` does not lie in [0, 1).

    Guarantees:
      Through `exact()`, with masking it is the mean of the updates and without masking
      the mean of `optax.trace(decay)`.

    References:
      Lin et al., "Deep Gradient Compression", ICLR 2018, Algorithm 1 and section 3.2.
    """
    checks.decay(decay=decay)

    def init(params):
        return LocalMomentumState(
            zeros_to_accumulate(params),
            ErrorFeedbackState(zeros_to_accumulate(params), channel.init(params)),
        )

    def update(updates, state, params=None, **extra_args):
        del extra_args
        momentum = jax.tree.map(
            lambda u, g: decay * u + g, state.momentum, widen(updates)
        )
        out, after = send_owed(
            channel, momentum, state.feedback, updates if params is None else params
        )
        if factor_masking:
            accumulated = optax.tree.add(state.feedback.residual, momentum)
            momentum = jax.tree.map(
                lambda u, v, lost: jnp.where(v == lost, u, 0),
                momentum,
                accumulated,
                after.residual,
            )
        return out, LocalMomentumState(momentum, after)

    return optax.GradientTransformationExtraArgs(init, update)
