"""EF-signSGD, signs with error feedback."""

from __future__ import annotations

import optax

from gmc_jax.channels.all_gather import all_gather
from gmc_jax.compressors.scaled_sign import scaled_sign
from gmc_jax.methods.ef_sgd import ef_sgd
from gmc_jax.utils.call_repr import call_repr


@call_repr
def ef_sign_sgd(
    learning_rate: optax.ScalarOrSchedule, *, axis_name: str = "workers"
) -> optax.GradientTransformationExtraArgs:
    """Sends the signs of each leaf with one magnitude, with error feedback.

        p_k = e_k + lr_t g_k;  C(p_k) = (|p_k|_1 / d) sign(p_k), leaf by leaf
        e_k <- p_k - C(p_k);  w_{t+1} = w_t - mean over k of C(p_k)

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`:

        chain(lr, error_feedback(all_gather(scaled_sign(), per_leaf=True)))

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A transformation from gradients to steps. Residuals differ between workers. They
      are in units of steps and signed as updates are: the state holds -e_k.

    Raises:
      TypeError: if `axis_name` is not a string.
      ValueError: if `learning_rate` is a negative or non-finite number.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.ef_sign_sgd(0.1)

    Guarantees:
      It is `ef_sgd` through `all_gather(scaled_sign(), per_leaf=True)`.
      The virtual iterate, w_t - mean over k of e_k, is exactly SGD with the gradients
      taken at w_t, under any schedule.

    References:
      Karimireddy, Rebjock, Stich and Jaggi, "Error Feedback Fixes SignSGD and other
      Gradient Compression Schemes", ICML 2019: Algorithm 1, which has one worker. With
      more workers, their messages are averaged.
    """
    signs = all_gather(scaled_sign(), per_leaf=True, axis_name=axis_name)
    return ef_sgd(learning_rate, signs)
