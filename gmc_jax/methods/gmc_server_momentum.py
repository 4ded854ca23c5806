"""The alternative to GMC with momentum on the server."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms._momentum import momentum_trace
from gmc_jax.transforms.error_feedback import error_feedback
from gmc_jax.utils import checks
from gmc_jax.utils.described import described


@described
def gmc_server_momentum(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    momentum: float | None = 0.9,
) -> optax.GradientTransformationExtraArgs:
    """Compresses gradients with error feedback and applies momentum afterwards.

        p_k = e_k + g_k;  e_k <- p_k - C(p_k)
        w_{t+1} = w_t - lr_t mean over k of C(p_k) + momentum (w_t - w_{t-1})

    The step is not sparse, so what goes round is the averaged message, and each worker
    applies the momentum itself. It is a momentum of steps: where a rate is 0 the
    parameters coast on, by `momentum` times the last step, and what is sent there is
    lost, as the equations have it. The momentum of `gmc` is divided by the rate, so
    that `gmc` stands still there and starts again.

    Args:
      learning_rate: a number, a schedule, or an array from `optax.inject_hyperparams`,
        which may inject all numbers.
      channel: what averages.
      momentum: in [0, 1) (None is 0).

    Returns:
      A transformation from gradients to steps. Its state holds one residual for each
      worker, in units of gradients, and one shared momentum, in units of steps.

    Raises:
      ValueError: if `momentum` does not lie in [0, 1), or a rate is negative or not
        finite.

    Example:
      >>> import gmc_jax
      >>> channel = gmc_jax.all_gather(gmc_jax.top_k(0.01))
      >>> tx = gmc_jax.gmc_server_momentum(0.1, channel)

    Guarantees:
      The identity of z_t of `gmc` holds for it word for word; the residual differs.
      Through `exact()` it is heavy ball under any schedule, and so `gmc` under any that
      is not 0 in between; with `momentum=0` it equals `gmc`.

    References:
      Algorithm 3, in the appendix of Shi et al., arXiv:1905.12948.
    """
    checks.momentum(momentum=momentum)
    checks.learning_rate(learning_rate=learning_rate)
    return optax.chain(
        error_feedback(channel),
        descent(learning_rate),
        momentum_trace(momentum),
    )
