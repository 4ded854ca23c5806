"""DMSGD, distributed momentum SGD with local momentum."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms._momentum import momentum_trace
from gmc_jax.transforms.averaged import averaged
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def dmsgd_local(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    momentum: float | None = 0.9,
) -> optax.GradientTransformationExtraArgs:
    """Applies momentum on each worker, then averages the momenta.

        m_{t+1,k} = momentum * m_{t,k} + g_{t,k}
        w_{t+1} = w_t - lr_t mean over k of m_{t+1,k}

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`:

        chain(trace(momentum), averaged(channel), lr)

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments.
      channel: averages the momenta over workers; `exact()` in the papers.
      momentum: each worker's own, in [0, 1); None means 0.

    Returns:
      A transformation from gradients to steps. Momenta differ between workers.

    Raises:
      TypeError: if `channel` is not a channel.
      ValueError: if `momentum` is not in [0, 1), or `learning_rate` is a negative or
        non-finite number.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.dmsgd_local(0.1, gmc_jax.exact())

    Guarantees:
      Through `exact()` it equals `dmsgd` under any schedule, to rounding.

    References:
      Shi, Zhao, Xie, Gao and Li, "Global Momentum Compression for Sparse Communication
      in Distributed Learning", arXiv:1905.12948: equations (4) to (6).
    """
    checks.momentum(momentum=momentum)
    checks.learning_rate(learning_rate=learning_rate)
    return optax.chain(
        momentum_trace(momentum),
        averaged(channel),
        descent(learning_rate),
    )
