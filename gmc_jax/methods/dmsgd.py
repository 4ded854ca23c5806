"""Distributed momentum SGD with global momentum."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms._momentum import momentum_trace
from gmc_jax.transforms.averaged import averaged
from gmc_jax.utils import checks
from gmc_jax.utils.described import described


@described
def dmsgd(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    momentum: float | None = 0.9,
) -> optax.GradientTransformationExtraArgs:
    """Averages gradients, then applies momentum: the dense baseline of every table.

        m_{t+1} = momentum * m_t + mean over k of g_{t,k};  w_{t+1} = w_t - lr_t m_{t+1}

    Its momentum is the buffer of `optax.trace`, the same on all workers; under a
    schedule that is not the heavy ball of `gmc`.

    Args:
      learning_rate: a number, a schedule, or an array from `optax.inject_hyperparams`,
        which may inject all numbers.
      channel: what averages; `exact()` is the method of the papers.
      momentum: in [0, 1) (None is 0).

    Returns:
      A transformation from gradients to steps.

    Raises:
      ValueError: if `momentum` does not lie in [0, 1), or a rate is negative or not
        finite.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.dmsgd(0.1, gmc_jax.exact())

    Guarantees:
      Through `exact()` it is `optax.sgd(learning_rate, momentum)` on the mean gradient.

    References:
      Equation (3) of Shi et al., arXiv:1905.12948.
    """
    checks.momentum(momentum=momentum)
    checks.learning_rate(learning_rate=learning_rate)
    return optax.chain(
        averaged(channel),
        momentum_trace(momentum),
        descent(learning_rate),
    )
