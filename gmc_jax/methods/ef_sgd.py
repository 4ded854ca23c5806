"""SGD with error feedback."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms.error_feedback import error_feedback
from gmc_jax.utils import checks
from gmc_jax.utils.described import described


@described
def ef_sgd(
    learning_rate: optax.ScalarOrSchedule, channel: Channel
) -> optax.GradientTransformationExtraArgs:
    """Compresses steps and sends later what was lost, without momentum.

        p_k = e_k + lr_t g_k;  e_k <- p_k - C(p_k)
        w_{t+1} = w_t - mean over k of C(p_k)

    Args:
      learning_rate: a number, a schedule, or an array from `optax.inject_hyperparams`,
        which may inject all numbers.
      channel: what averages.

    Returns:
      A transformation from gradients to steps. The residual is in units of steps,
      signed as updates are (-e_k), and differs between workers.

    Raises:
      ValueError: if a rate is negative or not finite.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.ef_sgd(0.1, gmc_jax.all_gather(gmc_jax.top_k(0.01)))

    Guarantees:
      w_t - mean of e_k is exactly SGD with the gradients taken at w_t, under any
      schedule and for any compressor.

    References:
      Stich, Cordonnier and Jaggi, "Sparsified SGD with Memory", NeurIPS 2018;
      Karimireddy et al., "Error Feedback Fixes SignSGD", ICML 2019.
    """
    checks.learning_rate(learning_rate=learning_rate)
    return optax.chain(descent(learning_rate), error_feedback(channel))
