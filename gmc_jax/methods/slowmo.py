"""SlowMo: a slow momentum over any method with local steps or gossip."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._momentum import momentum_value
from gmc_jax.transforms.averaged import averaged
from gmc_jax.transforms.buffers import Buffers
from gmc_jax.transforms.periodic import periodic
from gmc_jax.transforms.slow_momentum import slow_momentum as slow
from gmc_jax.utils import checks
from gmc_jax.utils.described import described


@described
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
    """Averages after every `period` steps, and gives the way come so far a momentum.

        x_k <- x_k - lr_t d_k                     `period` times, by the base
        u <- slow_momentum * u + (z - mean over k of x_k) / lr_t
        z <- z - slow_learning_rate * lr_t * u;  x_k <- z

    Here z is where workers last met. The base may be anything: `optax.sgd` with or
    without momentum (local SGD), `optax.adamw` (local Adam), a method that gossips
    (`d_psgd`, `sgp`), or one that averages at every step, through which workers stay
    alike. Nothing but what the base sends travels between meetings. Where push-sum
    weighs workers unequally, the mean is that of their numerators. With a delay a
    worker counts by the weight that it has and that it has in flight, and messages
    move with it, so that no mass is lost.

    Args:
      inner: the base, from gradients to steps, learning rate included. All numbers
        below may be injected by `optax.inject_hyperparams`.
      channel: what averages at the meetings; `exact()` in the paper,
        `no_communication()` for its variant without averages, where each worker has its
        own u (over push-sum only of a topology that treats all workers alike: elsewhere
        a meeting weighs each, and without a delay sets weights to 1).
      period: tau, local steps between two meetings; 12 for local SGD and 48 for gossip
        in the paper.
      slow_learning_rate: alpha, greater than 0; 1 throughout the paper.
      slow_momentum: beta, in [0, 1) (None is 0); tuned between 0.4 and 0.8 in the
        paper.
      learning_rate: that of the base, where it is a schedule: u then adds up directions
        and not steps, so that it stays comparable as the rate falls. None, or a number,
        for a constant rate, which cancels. It is asked for the local step, counted in
        calls: `accumulate` belongs around `slowmo`, not inside.
      buffers: what becomes of the base's buffers at a meeting: `maintain_buffers()`,
        the default (the paper for Adam, and the published codes), `reset_buffers()`
        (the paper for SGD), or `average_buffers(channel)`. Residuals and all else that
        the base conserves are no buffers: what is owed is still sent.

    Returns:
      A transformation from gradients to steps, the last in its chain. Parameters differ
      between workers; z and u only through `no_communication()`.

    Raises:
      TypeError: if `inner` is no transformation, `channel` no channel, or `buffers` no
        strategy.
      ValueError: if `slow_momentum` does not lie in [0, 1), `slow_learning_rate` is not
        finite and greater than 0, `period` is not a whole number of at least 1, or a
        rate is negative or not finite.

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
      With `slow_momentum=0` and `slow_learning_rate=1` it is the base with periodic
      averaging: over `optax.sgd`, `local_sgd`.
      Over plain SGD, with `period=1` and `slow_learning_rate=1`, it is SGD on the mean
      gradient with `slow_momentum` for its momentum.
      At a constant rate it is `bmuf` and, with one worker and no slow momentum,
      `lookahead`.
      With `period=1`, `slow_learning_rate=1`, no slow momentum and buffers maintained
      or averaged, local momenta average to `dmsgd`.

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
