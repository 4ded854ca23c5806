"""SlowMo, slow momentum over local steps, or over a method that gossips."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._momentum import momentum_value
from gmc_jax.transforms.averaged import averaged
from gmc_jax.transforms.buffers import Buffers
from gmc_jax.transforms.periodic import periodic
from gmc_jax.transforms.slow_momentum import slow_momentum as slow
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def slowmo(
    inner: optax.GradientTransformation,
    channel: Channel,
    *,
    period: int = 12,
    slow_learning_rate: float = 1.0,
    slow_momentum: float | None = 0.5,
    learning_rate: optax.ScalarOrSchedule | None = None,
    buffers: Buffers | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Averages parameters after every `period` steps and adds a slow momentum.

        x_k <- x_k - lr_t d_k                     `period` times, by `inner`
        u <- slow_momentum * u + (z - mean over k of x_k) / lr_t
        z <- z - slow_learning_rate * lr_t * u;  x_k <- z

    As a chain:

        slow = slow_momentum(slow_learning_rate, beta, learning_rate, period=period)
        periodic(inner, chain(averaged(channel), slow), period)

    Here z is the anchor, where all workers last synchronised. The inner optimizer may
    be `optax.sgd` with or without momentum (local SGD), `optax.adamw` (local Adam), or
    a method that gossips (`d_psgd`, `sgp`). It may also average at every step; then
    workers stay equal. Between synchronisations nothing is sent but what the inner
    optimizer sends.

    Over `sgp` a synchronisation averages the numerators, w_i times the parameters of
    worker i. With a delay, a worker's weight includes its weights in flight, and its
    messages in flight move with the anchor, so that nothing of the weighted sum is
    lost.

    Args:
      inner: the inner optimizer, from gradients to steps, learning rate included.
        `optax.inject_hyperparams` may inject all numeric arguments.
      channel: averages the pseudo-gradients over workers; `exact()` in the paper. With
        `no_communication()`, the paper's variant without averages, each worker has its
        own z and u. Over `sgp` that variant is meant for a topology that treats all
        workers alike: with any other, a synchronisation multiplies each pseudo-gradient
        by the worker's weight and, without a delay, sets weights to 1.
      period: local steps between two synchronisations, at least 1. It is tau in the
        paper: 12 for local SGD and 48 for gossip.
      slow_learning_rate: alpha in the paper, greater than 0; 1 throughout the paper.
      slow_momentum: beta in the paper, in [0, 1); None means 0. The paper tunes it
        between 0.4 and 0.8.
      learning_rate: lr_t of the inner optimizer, where it is a schedule. Then u adds up
        directions instead of steps and stays comparable as the rate falls. None, or a
        number, for a constant rate, which cancels. The schedule is called with the
        number of local steps, one for each call of `update`. So `accumulate` belongs
        around `slowmo`, not inside.
      buffers: what a synchronisation does to the inner optimizer's buffers:
        `maintain_buffers()`, the default, `reset_buffers()` or
        `average_buffers(channel)`. The paper resets for SGD and maintains for Adam; the
        published codes maintain. Residuals, and all else that the inner optimizer
        conserves, are not buffers and are kept.

    Returns:
      A transformation from gradients to steps, which stands last in its chain.
      Parameters differ between workers. z and u differ through `no_communication()`
      alone.

    Raises:
      TypeError: if `inner` is not a transformation, `channel` not a channel, or
        `buffers` not a strategy.
      ValueError: if `slow_momentum` is not in [0, 1), `slow_learning_rate` is not
        finite and greater than 0, `period` is not a whole number of at least 1, or
        `learning_rate` is a negative or non-finite number.

    Example:
      >>> import gmc_jax, optax
      >>> rate = optax.cosine_decay_schedule(0.1, 10_000)
      >>> tx = gmc_jax.slowmo(
      ...     optax.sgd(rate, momentum=0.9, nesterov=True),
      ...     gmc_jax.exact(),
      ...     learning_rate=rate,
      ...     buffers=gmc_jax.reset_buffers(),
      ... )

    Guarantees:
      With `slow_momentum=0` and `slow_learning_rate=1` it is the inner optimizer with
      periodic averages: over `optax.sgd`, `local_sgd`.
      Over plain SGD, with `period=1` and `slow_learning_rate=1`, it is SGD on the mean
      gradient whose momentum is `slow_momentum`.
      At a constant rate it is `bmuf` and, with one worker and no slow momentum,
      `lookahead`.
      With `period=1`, `slow_learning_rate=1`, no slow momentum and buffers maintained
      or averaged, the mean of the local momenta is that of `dmsgd`.

    References:
      Wang, Tantia, Ballas and Rabbat, "SlowMo: Improving Communication-Efficient
      Distributed SGD with Slow Momentum", ICLR 2020: Algorithm 1.
    """
    checks.momentum(slow_momentum=slow_momentum)
    outer = optax.chain(
        averaged(channel),
        slow(
            slow_learning_rate,
            momentum_value(slow_momentum),
            learning_rate,
            period=period,
        ),
    )
    return periodic(inner, outer, period, buffers=buffers)
