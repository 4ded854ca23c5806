"""Signum, signSGD with momentum."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._momentum import has_no_momentum, momentum_value
from gmc_jax.transforms.averaged import averaged
from gmc_jax.transforms.with_float32_state import with_float32_state
from gmc_jax.utils import checks
from gmc_jax.utils.described import described


@described
def signum(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    momentum: float | None = 0.9,
    weight_decay: float = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """Steps by the sign that most workers' momenta have.

        m_k <- momentum * m_k + (1 - momentum) * g_k
        V = sign(mean over k of sign(m_k));  w <- w - lr_t (V + weight_decay * w)

    Args:
      learning_rate: a number, a schedule, or an array from `optax.inject_hyperparams`,
        which may inject all numbers. Every entry moves by it at every step.
      channel: what averages signs, as in `sign_sgd`: `majority_vote()` or `exact()`.
      momentum: beta, in [0, 1) (None is 0).
      weight_decay: lambda, at least 0, added after the vote.

    Returns:
      A transformation from gradients to steps; momenta differ between workers.

    Raises:
      ValueError: if `momentum` does not lie in [0, 1), or a rate or `weight_decay` is
        negative or not finite.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.signum(1e-4, gmc_jax.majority_vote(), momentum=0.9)

    Guarantees:
      Scaling a worker's gradients, all of them, by a positive number changes nothing.
      With `momentum=0` it is `sign_sgd`.

    References:
      Bernstein, Wang, Azizzadenesheli and Anandkumar, "signSGD", ICML 2018; Bernstein,
      Zhao, Azizzadenesheli and Anandkumar, "signSGD with Majority Vote is Communication
      Efficient and Fault Tolerant", ICLR 2019.
    """
    checks.momentum(momentum=momentum)
    checks.learning_rate(learning_rate=learning_rate)
    checks.nonnegative(weight_decay=weight_decay)
    signs = with_float32_state(optax.stateless(lambda x, _: jax.tree.map(jnp.sign, x)))
    average = with_float32_state(optax.ema(momentum_value(momentum), debias=False))
    descent = optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )
    return optax.chain(
        *([] if has_no_momentum(momentum) else [average]),
        signs,
        averaged(channel),
        signs,
        with_float32_state(descent),
    )
