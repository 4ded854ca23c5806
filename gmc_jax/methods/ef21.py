"""EF21-SGDM, which sends differences of momenta."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms._momentum import has_no_momentum, momentum_value
from gmc_jax.transforms.send_differences import send_differences
from gmc_jax.transforms.with_float32_state import with_float32_state
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def ef21(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    momentum: float | None = 0.9,
) -> optax.GradientTransformationExtraArgs:
    """Compresses what each worker's momentum changed since its last message.

        v_k <- momentum * v_k + (1 - momentum) grad_k
        c_k = C(v_k - g_k);  g_k <- g_k + c_k;  g <- g + mean over k of c_k
        x_{t+1} = x_t - lr_t g

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`:

        chain(ema(momentum), send_differences(channel), lr)

    v_k, g_k and g start from 0. The paper starts them from the gradients at the first
    point, which would cost a dense message. The learning rate is outside: a schedule
    changes the steps and nothing that is sent.

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments.
      channel: averages the compressed differences over workers, such as
        `all_gather(top_k(0.01))`.
      momentum: each worker's own, in [0, 1); None means 0. It is 1 - eta in the paper,
        where 0 is EF21.

    Returns:
      A transformation from gradients to steps. v_k and g_k differ between workers.

    Raises:
      TypeError: if `channel` is not a channel.
      ValueError: if `momentum` is not in [0, 1), or `learning_rate` is a negative or
        non-finite number.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.ef21(0.1, gmc_jax.all_gather(gmc_jax.top_k(0.01)))

    Guarantees:
      g is the mean over workers of g_k, for any channel.
      Through `exact()` it is SGD on the mean gradient with the average `optax.ema` as
      its momentum.

    References:
      Fatkhullin, Tyurin and Richtarik, "Momentum Provably Improves Error Feedback!",
      NeurIPS 2023: Algorithm 1 (EF21-SGDM). Written from memory of the paper: no
      published code was at hand.
    """
    checks.momentum(momentum=momentum)
    checks.learning_rate(learning_rate=learning_rate)
    ema = with_float32_state(optax.ema(momentum_value(momentum), debias=False))
    return optax.chain(
        *([] if has_no_momentum(momentum) else [ema]),
        send_differences(channel),
        descent(learning_rate),
    )
