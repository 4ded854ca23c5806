"""Distributed momentum SGD with local momentum."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms._momentum import momentum_trace
from gmc_jax.transforms.averaged import averaged
from gmc_jax.utils import checks
from gmc_jax.utils.described import described


@described
def dmsgd_local(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    momentum: float | None = 0.9,
) -> optax.GradientTransformationExtraArgs:
    """Applies momentum on each worker, then averages.

        m_{t+1,k} = momentum * m_{t,k} + g_{t,k}
        w_{t+1} = w_t - lr_t mean over k of m_{t+1,k}

    Args:
      learning_rate: a number, a schedule, or an array from `optax.inject_hyperparams`,
        which may inject all numbers.
      channel: what averages; `exact()` is the method of the papers.
      momentum: in [0, 1) (None is 0).

    Returns:
      A transformation from gradients to steps; momenta differ between workers.

    Raises:
      ValueError: if `momentum` does not lie in [0, 1), or a rate is negative or not
        finite.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.dmsgd_local(0.1, gmc_jax.exact())

    Guarantees:
      Through `exact()` it equals `dmsgd` under any schedule, to rounding.

    References:
      Equations (4) to (6) of Shi et al., arXiv:1905.12948.
    """
    checks.momentum(momentum=momentum)
    checks.learning_rate(learning_rate=learning_rate)
    return optax.chain(
        momentum_trace(momentum),
        averaged(channel),
        descent(learning_rate),
    )
