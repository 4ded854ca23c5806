"""Signum, signSGD with momentum."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._learning_rate import decayed_descent
from gmc_jax.transforms._momentum import has_no_momentum, momentum_value
from gmc_jax.transforms.averaged import averaged
from gmc_jax.transforms.with_float32_state import with_float32_state
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def signum(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    momentum: float | None = 0.9,
    weight_decay: float = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """Steps by the sign that most workers' momenta have.

        m_k <- momentum * m_k + (1 - momentum) * g_k
        V = sign(mean over k of sign(m_k))
        w_{t+1} = w_t - lr_t (V + weight_decay * w_t)

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`:

        votes = ema(momentum), sign, averaged(channel), sign
        chain(*votes, add_decayed_weights(weight_decay), lr)

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments. Every entry moves
        by the rate at every step.
      channel: averages the signs over workers: `majority_vote()` or `exact()`, as for
        `sign_sgd`.
      momentum: each worker's own, in [0, 1); None means 0. It is beta in the paper.
      weight_decay: lambda, at least 0. It is added after the vote.

    Returns:
      A transformation from gradients to steps. Momenta differ between workers.

    Raises:
      TypeError: if `channel` is not a channel.
      ValueError: if `momentum` is not in [0, 1), `learning_rate` is a negative or
        non-finite number, or `weight_decay` is negative or not finite.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.signum(1e-4, gmc_jax.majority_vote(), momentum=0.9)

    Guarantees:
      Multiplying all gradients of a worker by a positive number changes nothing.
      With `momentum=0` it is `sign_sgd`.

    References:
      Bernstein, Wang, Azizzadenesheli and Anandkumar, "signSGD", ICML 2018; Bernstein,
      Zhao, Azizzadenesheli and Anandkumar, "signSGD with Majority Vote is Communication
      Efficient and Fault Tolerant", ICLR 2019.
    """
    checks.momentum(momentum=momentum)
    checks.learning_rate(learning_rate=learning_rate)
    checks.nonnegative(weight_decay=weight_decay)
    sign = with_float32_state(optax.stateless(lambda x, _: jax.tree.map(jnp.sign, x)))
    ema = with_float32_state(optax.ema(momentum_value(momentum), debias=False))
    return optax.chain(
        *([] if has_no_momentum(momentum) else [ema]),
        sign,
        averaged(channel),
        sign,
        decayed_descent(learning_rate, weight_decay),
    )
