"""EF-signSGD: signs with error feedback."""

from __future__ import annotations

import optax

from gmc_jax.channels.all_gather import all_gather
from gmc_jax.compressors.scaled_sign import scaled_sign
from gmc_jax.methods.ef_sgd import ef_sgd
from gmc_jax.utils.described import described


@described
def ef_sign_sgd(
    learning_rate: optax.ScalarOrSchedule, *, axis_name: str = "workers"
) -> optax.GradientTransformationExtraArgs:
    """Sends the signs of each leaf and one magnitude for it, and later what was lost.

        p_k = e_k + lr_t g_k;  c_k = (|p_k|_1 / d) sign(p_k), leaf by leaf
        e_k <- p_k - c_k;  w_{t+1} = w_t - mean over k of c_k

    Args:
      learning_rate: a number, a schedule, or an array from `optax.inject_hyperparams`,
        which may inject all numbers.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A transformation from gradients to steps. The residual is in units of steps,
      signed as updates are (-e_k), and differs between workers.

    Raises:
      ValueError: if a rate is negative or not finite.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.ef_sign_sgd(0.1)

    Guarantees:
      It is `ef_sgd` through `all_gather(scaled_sign(), per_leaf=True)`: w_t - mean of
      e_k is exactly SGD with the gradients taken at w_t, under any schedule.

    References:
      Karimireddy, Rebjock, Stich and Jaggi, "Error Feedback Fixes SignSGD and other
      Gradient Compression Schemes", ICML 2019: Algorithm 1, of one worker; with more,
      their messages are averaged.
    """
    signs = all_gather(scaled_sign(), per_leaf=True, axis_name=axis_name)
    return ef_sgd(learning_rate, signs)
