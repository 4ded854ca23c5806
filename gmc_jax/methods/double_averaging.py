"""Double averaging: parameters and momenta are averaged together."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.methods.local_sgd import local_sgd
from gmc_jax.transforms.buffers import average_buffers
from gmc_jax.utils import checks
from gmc_jax.utils.described import described


@described
def double_averaging(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    buffer_channel: Channel,
    *,
    period: int,
    momentum: float | None = 0.9,
    nesterov: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Local momentum SGD whose momenta are averaged wherever parameters are.

        m_k <- momentum * m_k + g_k;  x_k <- x_k - lr_t m_k
        after every `period` steps:
        x_k <- mean over j of x_j;  m_k <- mean over j of m_j

    A meeting sends `message_bits(channel, params)`, and for the momenta
    `message_bits(buffer_channel, params)`.

    Args:
      learning_rate: a number, a schedule, or an array from `optax.inject_hyperparams`,
        which may inject all numbers.
      channel: what averages parameters, `exact()` in the paper.
      buffer_channel: what averages momenta, `exact()` in the paper.
      period: local steps between two meetings, at least 1.
      momentum: in [0, 1) (None is 0).
      nesterov: whether momentum is Nesterov's.

    Returns:
      A transformation from gradients to steps, the last in its chain. Parameters and
      momenta differ between workers.

    Raises:
      TypeError: if a channel is none.
      ValueError: if `momentum` does not lie in [0, 1), `period` is not a whole number
        of at least 1, or a rate is negative or not finite.

    Example:
      >>> import gmc_jax
      >>> exact = gmc_jax.exact()
      >>> tx = gmc_jax.double_averaging(0.1, exact, exact, period=8)

    Guarantees:
      It is `local_sgd` with `average_buffers(buffer_channel)`.

    References:
      Yu, Jin and Yang, "On the Linear Speedup Analysis of Communication Efficient
      Momentum SGD for Distributed Non-Convex Optimization", ICML 2019 (PR-SGD with
      momentum).
    """
    checks.channel(buffer_channel=buffer_channel)
    return local_sgd(
        learning_rate,
        channel,
        period=period,
        momentum=momentum,
        nesterov=nesterov,
        buffers=average_buffers(buffer_channel),
    )
