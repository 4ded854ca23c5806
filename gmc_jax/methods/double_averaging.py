"""Double averaging, which averages parameters and momenta together."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.methods.local_sgd import local_sgd
from gmc_jax.transforms.buffers import average_buffers
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def double_averaging(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    buffer_channel: Channel,
    *,
    period: int,
    momentum: float | None = 0.9,
    nesterov: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Local SGD that averages the momenta whenever it averages the parameters.

        m_k <- momentum * m_k + g_k;  x_k <- x_k - lr_t m_k
        after every `period` steps:
        x_k <- mean over j of x_j;  m_k <- mean over j of m_j

    As a chain:

        buffers = average_buffers(buffer_channel)
        local_sgd(learning_rate, channel, period=period, buffers=buffers)

    A synchronisation sends `message_bits(channel, params)` for the parameters and
    `message_bits(buffer_channel, params)` for the momenta.

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments.
      channel: averages the pseudo-gradients over workers; `exact()` in the paper.
      buffer_channel: averages the momenta over workers; `exact()` in the paper.
      period: local steps between two synchronisations, at least 1.
      momentum: each worker's own, in [0, 1); None means 0.
      nesterov: whether the momentum is Nesterov's, as in `optax.sgd`.

    Returns:
      A transformation from gradients to steps, which stands last in its chain.
      Parameters and momenta differ between workers.

    Raises:
      TypeError: if `channel` or `buffer_channel` is not a channel.
      ValueError: if `momentum` is not in [0, 1), `period` is not a whole number of at
        least 1, or `learning_rate` is a negative or non-finite number.

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
