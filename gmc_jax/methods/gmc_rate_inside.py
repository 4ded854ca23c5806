"""The alternative to GMC with the learning rate inside the residual."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms._momentum import momentum_value
from gmc_jax.transforms.error_feedback import error_feedback
from gmc_jax.transforms.global_momentum import global_momentum
from gmc_jax.utils import checks
from gmc_jax.utils.described import described


@described
def gmc_rate_inside(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    momentum: float | None = 0.9,
) -> optax.GradientTransformationExtraArgs:
    """GMC with residuals in units of steps.

        v_k = e_k + lr_t g_k - momentum (w_t - w_{t-1})
        w_{t+1} = w_t - mean over k of C(v_k);  e_k <- v_k - C(v_k)

    In units of gradients its residual re-enters with the factor lr_{t-1} / lr_t, at
    least 1 under a falling rate, where GMC's re-enters with 1.

    Args:
      learning_rate: a number, a schedule, or an array from `optax.inject_hyperparams`,
        which may inject all numbers.
      channel: what averages.
      momentum: in [0, 1) (None is 0).

    Returns:
      A transformation from gradients to steps. Its state holds one residual for each
      worker, in units of steps and signed as updates are, and the last step.

    Raises:
      ValueError: if `momentum` does not lie in [0, 1), or a rate is negative or not
        finite.

    Example:
      >>> import gmc_jax
      >>> channel = gmc_jax.all_gather(gmc_jax.top_k(0.01))
      >>> tx = gmc_jax.gmc_rate_inside(0.1, channel)

    Guarantees:
      At a constant rate, for a compressor that commutes with scaling, it is `gmc`, and
      its residual is the rate times GMC's.
      For any schedule and compressor, with b the momentum, z_t =
      (w_t - b w_{t-1} - mean of e_{t,k}) / (1 - b) moves by -lr_t / (1 - b) times the
      mean gradient.

    References:
      Algorithm 4, in the appendix of Shi et al., arXiv:1905.12948.
    """
    checks.momentum(momentum=momentum)
    checks.learning_rate(learning_rate=learning_rate)
    return optax.chain(
        descent(learning_rate),
        global_momentum(error_feedback(channel), momentum_value(momentum)),
    )
