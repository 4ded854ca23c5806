"""Distributed Lion, which sends the signs of Lion's updates."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._learning_rate import decayed_descent
from gmc_jax.transforms.averaged import averaged
from gmc_jax.transforms.with_float32_state import with_float32_state
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def distributed_lion(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    momentum: float = 0.9,
    momentum_decay: float = 0.99,
    weight_decay: float = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """Steps by the majority, or by the mean, of the signs of all workers' Lion updates.

        d_k = sign(momentum * m_k + (1 - momentum) g_k)
        m_k <- momentum_decay * m_k + (1 - momentum_decay) g_k
        d = sign(sum over k of d_k), or mean over k of d_k, as the channel averages
        w_{t+1} = w_t - lr_t (d + weight_decay * w_t)

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`:

        chain(scale_by_lion(momentum, momentum_decay), averaged(channel),
              add_decayed_weights(weight_decay), lr)

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments. Adam's rate is
        usually 3 to 10 times larger.
      channel: averages the signs over workers. `majority_vote()` is the paper's
        majority: one bit an entry each way, no zero, and +1 in a tie.
        `all_gather(scaled_sign())` is its average: one bit an entry, sent to everybody;
        where all d_k are +1 or -1, its mean is exact. `exact()` is the average in full
        precision, in which an entry without a gradient has the sign 0.
      momentum: of the sign, in [0, 1); beta_1 in the paper.
      momentum_decay: of m_k, in [0, 1); beta_2 in the paper.
      weight_decay: lambda, at least 0. It is added after the average, as part of the
        step. Lion needs one that is as many times larger as its rate is smaller.

    Returns:
      A transformation from gradients to steps. Momenta differ between workers.

    Raises:
      TypeError: if `channel` is not a channel.
      ValueError: if `momentum` or `momentum_decay` is not in [0, 1), `learning_rate` is
        a negative or non-finite number, or `weight_decay` is negative or not finite.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.distributed_lion(1e-4, gmc_jax.majority_vote(), weight_decay=1.0)

    Guarantees:
      With one worker, through `exact()`, it is `optax.lion`.
      Multiplying all gradients of a worker by a positive number changes nothing.
      Through `majority_vote()` every entry of d is +1 or -1.

    References:
      Liu, Wu, Chen, Liang, Zhu and Liu, "Communication Efficient Distributed Training
      with Distributed Lion", NeurIPS 2024: Algorithm 1.
    """
    checks.decay(momentum=momentum, momentum_decay=momentum_decay)
    checks.learning_rate(learning_rate=learning_rate)
    checks.nonnegative(weight_decay=weight_decay)
    lion = optax.scale_by_lion(b1=momentum, b2=momentum_decay)
    return optax.chain(
        with_float32_state(lion),
        averaged(channel),
        decayed_descent(learning_rate, weight_decay),
    )
