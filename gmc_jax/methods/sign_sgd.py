"""signSGD, with majority vote."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.methods.signum import signum
from gmc_jax.utils.described import described


@described
def sign_sgd(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    weight_decay: float = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """Steps by the sign that most workers' gradients have.

        V = sign(mean over k of sign(g_k));  w <- w - lr_t (V + weight_decay * w)

    Args:
      learning_rate: a number, a schedule, or an array from `optax.inject_hyperparams`,
        which may inject all numbers. Every entry moves by it at every step.
      channel: what averages signs: `majority_vote()`, where a bit knows no zero; or
        `exact()`, where sign(0) = 0 and ties leave an entry alone, as in the first
        paper's code, at full width.
      weight_decay: lambda, at least 0, added after the vote.

    Returns:
      A transformation from gradients to steps. Nothing differs between workers.

    Raises:
      ValueError: if a rate or `weight_decay` is negative or not finite.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.sign_sgd(1e-3, gmc_jax.majority_vote())

    Guarantees:
      Scaling a worker's gradient by a positive number changes nothing.
      Workers that send opposite signs change nothing where more than half of all
      workers agree honestly.
      It is `signum` without momentum.

    References:
      Bernstein, Wang, Azizzadenesheli and Anandkumar, "signSGD", ICML 2018; Bernstein,
      Zhao, Azizzadenesheli and Anandkumar, "signSGD with Majority Vote is Communication
      Efficient and Fault Tolerant", ICLR 2019.
    """
    return signum(learning_rate, channel, momentum=0.0, weight_decay=weight_decay)
