"""The alternative to GMC with momentum on the server."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms._momentum import momentum_trace
from gmc_jax.transforms.error_feedback import error_feedback
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def gmc_server_momentum(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    momentum: float | None = 0.9,
) -> optax.GradientTransformationExtraArgs:
    """Compresses gradients with error feedback and applies momentum afterwards.

        p_k = e_k + g_k;  e_k <- p_k - C(p_k)
        w_{t+1} = w_t - lr_t mean over k of C(p_k) + momentum (w_t - w_{t-1})

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`:

        chain(error_feedback(channel), lr, trace(momentum))

    The momentum is dense, and so is the step. Workers send messages without momentum,
    and each applies the same momentum to their mean.

    The momentum is in units of steps. At a rate of 0 the parameters still move, by
    `momentum` times the last step, and the message of that step is lost, as the
    equations say. `gmc` divides its momentum by the rate: at a rate of 0 it stops, and
    afterwards its momentum starts anew.

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments.
      channel: averages the compressed gradients over workers, such as
        `all_gather(top_k(0.01))`.
      momentum: in [0, 1); None means 0.

    Returns:
      A transformation from gradients to steps. Residuals, in units of gradients, differ
      between workers. The momentum, in units of steps, is the same on all.

    Raises:
      TypeError: if `channel` is not a channel.
      ValueError: if `momentum` is not in [0, 1), or `learning_rate` is a negative or
        non-finite number.

    Example:
      >>> import gmc_jax
      >>> channel = gmc_jax.all_gather(gmc_jax.top_k(0.01))
      >>> tx = gmc_jax.gmc_server_momentum(0.1, channel)

    Guarantees:
      The guarantee of `gmc` about z_t holds word for word, with this method's residual.
      Through `exact()` it is heavy ball under any schedule, and so it equals `gmc` if
      no rate before the last is 0.
      With `momentum=0` it equals `gmc`.

    References:
      Shi, Zhao, Xie, Gao and Li, "Global Momentum Compression for Sparse Communication
      in Distributed Learning", arXiv:1905.12948: Algorithm 3, in the appendix.
    """
    checks.momentum(momentum=momentum)
    checks.learning_rate(learning_rate=learning_rate)
    return optax.chain(
        error_feedback(channel),
        descent(learning_rate),
        momentum_trace(momentum),
    )
