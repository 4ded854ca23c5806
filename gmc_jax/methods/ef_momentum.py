"""Error feedback behind each worker's own momentum."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms._momentum import momentum_trace
from gmc_jax.transforms.error_feedback import error_feedback
from gmc_jax.utils import checks
from gmc_jax.utils.described import described


@described
def ef_momentum(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    momentum: float | None = 0.9,
) -> optax.GradientTransformationExtraArgs:
    """Applies momentum on each worker, then compresses steps with error feedback.

        m_k <- momentum * m_k + g_k;  p_k = e_k + lr_t m_k
        w_{t+1} = w_t - mean over k of C(p_k);  e_k <- p_k - C(p_k)

    Args:
      learning_rate: a number, a schedule, or an array from `optax.inject_hyperparams`,
        which may inject all numbers.
      channel: what averages.
      momentum: in [0, 1) (None is 0).

    Returns:
      A transformation from gradients to steps. Momentum and residual (in units of
      steps, signed as updates are) differ between workers.

    Raises:
      ValueError: if `momentum` does not lie in [0, 1), or a rate is negative or not
        finite.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.ef_momentum(0.1, gmc_jax.all_gather(gmc_jax.top_k(0.01)))

    Guarantees:
      With `momentum=0` it is `ef_sgd`; through `exact()` it is `dmsgd`, to rounding.

    References:
      "EF" in the experiments of Xu and Huang, ICML 2022; equation (6) of Shi et al.,
      arXiv:1905.12948, with error feedback.
    """
    checks.momentum(momentum=momentum)
    checks.learning_rate(learning_rate=learning_rate)
    return optax.chain(
        momentum_trace(momentum),
        descent(learning_rate),
        error_feedback(channel),
    )
