"""DMSGD, distributed momentum SGD with global momentum."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms._momentum import momentum_trace
from gmc_jax.transforms.averaged import averaged
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def dmsgd(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    momentum: float | None = 0.9,
) -> optax.GradientTransformationExtraArgs:
    """Averages gradients, then applies momentum: the dense baseline of the papers.

        m_{t+1} = momentum * m_t + mean over k of g_{t,k};  w_{t+1} = w_t - lr_t m_{t+1}

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`:

        chain(averaged(channel), trace(momentum), lr)

    The momentum is the buffer of `optax.trace`, the same on all workers. Under a
    schedule it differs from the heavy ball of `gmc`.

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments.
      channel: averages the gradients over workers; `exact()` in the papers.
      momentum: in [0, 1); None means 0.

    Returns:
      A transformation from gradients to steps.

    Raises:
      TypeError: if `channel` is not a channel.
      ValueError: if `momentum` is not in [0, 1), or `learning_rate` is a negative or
        non-finite number.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.dmsgd(0.1, gmc_jax.exact())

    Guarantees:
      Through `exact()` it is `optax.sgd(learning_rate, momentum)` on the mean gradient.

    References:
      Shi, Zhao, Xie, Gao and Li, "Global Momentum Compression for Sparse Communication
      in Distributed Learning", arXiv:1905.12948: equation (3).
    """
    checks.momentum(momentum=momentum)
    checks.learning_rate(learning_rate=learning_rate)
    return optax.chain(
        averaged(channel),
        momentum_trace(momentum),
        descent(learning_rate),
    )
