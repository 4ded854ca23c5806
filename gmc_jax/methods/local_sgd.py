"""Local SGD, which averages parameters every few steps."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._momentum_sgd import momentum_sgd
from gmc_jax.transforms.averaged import averaged
from gmc_jax.transforms.buffers import Buffers
from gmc_jax.transforms.periodic import Period, periodic
from gmc_jax.utils.call_repr import call_repr


@call_repr
def local_sgd(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    period: Period,
    momentum: float | None = 0.0,
    nesterov: bool = False,
    buffers: Buffers | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Takes local steps and averages the parameters after every `period` of them.

        m_k <- momentum * m_k + g_k;  x_k <- x_k - lr_t m_k
        after every `period` steps:  x_k <- mean over j of x_j

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`:

        inner, outer = chain(trace(momentum), lr), chain(averaged(channel), scale(-1))
        periodic(inner, outer, period)

    The channel averages pseudo-gradients: how far each worker has moved since the last
    synchronisation. So a lossy channel loses parts of these moves, and never of the
    parameters themselves. What is lost is never sent; `qsparse_local_sgd` keeps it and
    sends it later.

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments.
      channel: averages the pseudo-gradients over workers; `exact()` in the papers.
      period: local steps between two synchronisations, at least 1. It is a number, or a
        function of the step.
      momentum: each worker's own, in [0, 1); None means 0.
      nesterov: whether the momentum is Nesterov's, as in `optax.sgd`.
      buffers: what a synchronisation does to the inner optimizer's buffers:
        `maintain_buffers()`, the default, `reset_buffers()` or
        `average_buffers(channel)`. With `average_buffers(exact())` it is
        `double_averaging`.

    Returns:
      A transformation from gradients to steps, which stands last in its chain.
      Parameters and momenta differ between workers.

    Raises:
      TypeError: if `channel` is not a channel, or `buffers` not a strategy.
      ValueError: if `momentum` is not in [0, 1), `period` is a number but not a whole
        number of at least 1, or `learning_rate` is a negative or non-finite number.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.local_sgd(0.1, gmc_jax.exact(), period=8)

    Guarantees:
      With `period=1`, through `exact()`, parameters move as under `dmsgd`, to rounding.
      Through `exact()`, where all workers' losses are quadratic with the same Hessian,
      the mean of the workers' parameters moves as under SGD on the mean gradient, for
      every period.

    References:
      McMahan et al., "Communication-Efficient Learning of Deep Networks from
      Decentralized Data", AISTATS 2017; Stich, "Local SGD Converges Fast and
      Communicates Little", ICLR 2019; Yu, Yang and Zhu, "Parallel Restarted SGD", AAAI
      2019.
    """
    inner = momentum_sgd(learning_rate, momentum, nesterov)
    outer = optax.chain(averaged(channel), optax.scale(-1.0))
    return periodic(inner, outer, period, buffers=buffers)
