"""Local SGD, which averages parameters after every few steps."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._momentum_sgd import momentum_sgd
from gmc_jax.transforms.averaged import averaged
from gmc_jax.transforms.buffers import Buffers
from gmc_jax.transforms.periodic import Period, periodic
from gmc_jax.utils.described import described


@described
def local_sgd(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    period: Period,
    momentum: float | None = 0.0,
    nesterov: bool = False,
    buffers: Buffers | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Steps alone, and averages parameters over workers after every `period` steps.

        m_k <- momentum * m_k + g_k;  x_k <- x_k - lr_t m_k
        after every `period` steps:  x_k <- mean over j of x_j

    What is averaged is the way since the last meeting, so that a lossy channel loses
    none of the parameters themselves; what it loses of the way is lost for good (for
    error feedback put your own `outer` into `periodic`).

    Args:
      learning_rate: a number, a schedule, or an array from `optax.inject_hyperparams`,
        which may inject all numbers.
      channel: what averages, `exact()` in the papers.
      period: local steps between two meetings: a number of at least 1, or a function of
        the step.
      momentum: in [0, 1) (None is 0).
      nesterov: whether momentum is Nesterov's.
      buffers: what becomes of the momenta at a meeting; see `periodic`. With
        `average_buffers(exact())` it is `double_averaging`.

    Returns:
      A transformation from gradients to steps, the last in its chain. Parameters and
      momenta differ between workers.

    Raises:
      ValueError: if `momentum` does not lie in [0, 1), `period` is a number but not a
        whole one of at least 1, or a rate is negative or not finite.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.local_sgd(0.1, gmc_jax.exact(), period=8)

    Guarantees:
      With `period=1`, through `exact()`, parameters move as under `dmsgd`, to rounding.
      Where all workers have the same Hessian, the mean of the workers is SGD on the
      mean gradient for every period.

    References:
      McMahan et al., "Communication-Efficient Learning of Deep Networks from
      Decentralized Data", AISTATS 2017; Stich, "Local SGD Converges Fast and
      Communicates Little", ICLR 2019; Yu, Yang and Zhu, "Parallel Restarted SGD", AAAI
      2019.
    """
    inner = momentum_sgd(learning_rate, momentum, nesterov)
    outer = optax.chain(averaged(channel), optax.scale(-1.0))
    return periodic(inner, outer, period, buffers=buffers)
