"""EF-SGD, SGD with error feedback."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms.error_feedback import error_feedback
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def ef_sgd(
    learning_rate: optax.ScalarOrSchedule, channel: Channel
) -> optax.GradientTransformationExtraArgs:
    """Compresses steps and adds what was lost to the next step, without momentum.

        p_k = e_k + lr_t g_k;  e_k <- p_k - C(p_k)
        w_{t+1} = w_t - mean over k of C(p_k)

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`:

        chain(lr, error_feedback(channel))

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments.
      channel: averages the compressed steps over workers, such as
        `all_gather(top_k(0.01))`.

    Returns:
      A transformation from gradients to steps. Residuals differ between workers. They
      are in units of steps and signed as updates are: the state holds -e_k.

    Raises:
      TypeError: if `channel` is not a channel.
      ValueError: if `learning_rate` is a negative or non-finite number.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.ef_sgd(0.1, gmc_jax.all_gather(gmc_jax.top_k(0.01)))

    Guarantees:
      The virtual iterate, w_t - mean over k of e_k, is exactly SGD with the gradients
      taken at w_t, under any schedule and for any compressor.

    References:
      Stich, Cordonnier and Jaggi, "Sparsified SGD with Memory", NeurIPS 2018;
      Karimireddy, Rebjock, Stich and Jaggi, "Error Feedback Fixes SignSGD and other
      Gradient Compression Schemes", ICML 2019.
    """
    checks.learning_rate(learning_rate=learning_rate)
    return optax.chain(descent(learning_rate), error_feedback(channel))
