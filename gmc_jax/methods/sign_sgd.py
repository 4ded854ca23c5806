"""signSGD with majority vote."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.methods.signum import signum
from gmc_jax.utils.call_repr import call_repr


@call_repr
def sign_sgd(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    weight_decay: float = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """Steps by the sign that most workers' gradients have.

        V = sign(mean over k of sign(g_k))
        w_{t+1} = w_t - lr_t (V + weight_decay * w_t)

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`:

        chain(sign, averaged(channel), sign, add_decayed_weights(weight_decay), lr)

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments. Every entry moves
        by the rate at every step.
      channel: averages the signs over workers: `majority_vote()` sends one bit an entry
        and has no zero; `exact()` has sign(0) = 0, so that ties leave an entry
        unchanged, as in the first paper's code, and sends full precision.
      weight_decay: lambda, at least 0. It is added after the vote.

    Returns:
      A transformation from gradients to steps. Nothing differs between workers.

    Raises:
      TypeError: if `channel` is not a channel.
      ValueError: if `learning_rate` is a negative or non-finite number, or
        `weight_decay` is negative or not finite.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.sign_sgd(1e-3, gmc_jax.majority_vote())

    Guarantees:
      Multiplying a worker's gradient by a positive number changes nothing.
      Where more than half of all workers send the same sign, the other workers cannot
      change the result, whatever signs they send.
      It is `signum` without momentum.

    References:
      Bernstein, Wang, Azizzadenesheli and Anandkumar, "signSGD", ICML 2018; Bernstein,
      Zhao, Azizzadenesheli and Anandkumar, "signSGD with Majority Vote is Communication
      Efficient and Fault Tolerant", ICLR 2019.
    """
    return signum(learning_rate, channel, momentum=0.0, weight_decay=weight_decay)
