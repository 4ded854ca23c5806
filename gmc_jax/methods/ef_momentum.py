"""EF with momentum: error feedback behind each worker's own momentum."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms._momentum import momentum_trace
from gmc_jax.transforms.error_feedback import error_feedback
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def ef_momentum(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    momentum: float | None = 0.9,
) -> optax.GradientTransformationExtraArgs:
    """Applies momentum on each worker, then compresses steps with error feedback.

        m_k <- momentum * m_k + g_k;  p_k = e_k + lr_t m_k;  e_k <- p_k - C(p_k)
        w_{t+1} = w_t - mean over k of C(p_k)

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`:

        chain(trace(momentum), lr, error_feedback(channel))

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments.
      channel: averages the compressed steps over workers, such as
        `all_gather(top_k(0.01))`.
      momentum: each worker's own, in [0, 1); None means 0.

    Returns:
      A transformation from gradients to steps. Momenta and residuals differ between
      workers. Residuals are in units of steps and signed as updates are: the state
      holds -e_k.

    Raises:
      TypeError: if `channel` is not a channel.
      ValueError: if `momentum` is not in [0, 1), or `learning_rate` is a negative or
        non-finite number.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.ef_momentum(0.1, gmc_jax.all_gather(gmc_jax.top_k(0.01)))

    Guarantees:
      With `momentum=0` it is `ef_sgd`.
      Through `exact()` it is `dmsgd`, to rounding.

    References:
      Xu and Huang, "Detached Error Feedback for Distributed SGD with Random
      Sparsification", ICML 2022 ("EF" in the experiments); Shi et al.,
      arXiv:1905.12948: equation (6), with error feedback.
    """
    checks.momentum(momentum=momentum)
    checks.learning_rate(learning_rate=learning_rate)
    return optax.chain(
        momentum_trace(momentum),
        descent(learning_rate),
        error_feedback(channel),
    )
