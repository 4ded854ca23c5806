"""Slow momentum: the momentum of the way that workers go between meetings."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmc_jax.core import Tree
from gmc_jax.transforms._learning_rate import rate_at
from gmc_jax.utils import checks
from gmc_jax.utils.described import described
from gmc_jax.utils.trees import times, upcast_floating, zeros_to_accumulate


class SlowMomentumState(NamedTuple):
    """The state of slow momentum.

    Attributes:
      meeting: int32, updates so far.
      momentum: u, in units of the base's directions: steps over the learning rate.
    """

    meeting: jax.Array
    momentum: Tree


@described
def slow_momentum(
    slow_learning_rate: float,
    decay: float,
    learning_rate: optax.ScalarOrSchedule | None = None,
    *,
    period: int = 1,
) -> optax.GradientTransformationExtraArgs:
    """Moves the anchor by a momentum of how far workers came since the last meeting.

        u <- decay * u + (z - x) / lr;  z <- z - slow_learning_rate * lr * u

    The outer half of SlowMo, behind what averages z - x over workers. Division by the
    base's learning rate makes u a sum of directions, of equal weight whatever the rate
    was when they were taken; at a constant rate it cancels. The rate is the one of the
    last local step before the meeting, in both places, as the published code has it.
    Where it is 0 the rate cancels as well: the anchor moves by slow_learning_rate times
    the way, z <- z - slow_learning_rate * (z - x), and u, which cannot hold a way over
    0, fades and is not added to.

    Args:
      slow_learning_rate: alpha in the paper, greater than 0; the paper uses 1.
      decay: beta in the paper, the slow momentum, in [0, 1).
      learning_rate: of the base: a number, or a schedule of its steps; None for 1.
      period: how many of the base's steps lie between two meetings.

    Returns:
      A transformation for the outer part of `periodic`, with `SlowMomentumState`.

    Raises:
      ValueError: if `decay` does not lie in [0, 1), `slow_learning_rate` is not finite
        and greater than 0, `period` is not a whole number of at least 1, or a rate is
        negative or not finite.

    Guarantees:
      At a constant rate greater than 0 it is `optax.sgd(slow_learning_rate, decay)`.

    References:
      Wang, Tantia, Ballas and Rabbat, "SlowMo: Improving Communication-Efficient
      Distributed SGD with Slow Momentum", ICLR 2020: Algorithm 1, lines 7 and 8.
    """
    checks.decay(decay=decay)
    checks.positive(slow_learning_rate=slow_learning_rate)
    if learning_rate is not None:
        checks.learning_rate(learning_rate=learning_rate)
    checks.steps(period=period)

    def init(params):
        return SlowMomentumState(jnp.zeros((), jnp.int32), zeros_to_accumulate(params))

    def update(updates, state, params=None, **extra_args):
        del params, extra_args
        most = (jnp.iinfo(jnp.int32).max - period + 1) // period
        last = period * jnp.minimum(state.meeting, most) + period - 1
        rate = rate_at(learning_rate, last)
        still = rate == 0

        way = upcast_floating(updates)
        inverse = jnp.where(still, 0, 1 / jnp.where(still, 1, rate))
        momentum = jax.tree.map(
            lambda u, leaf: times(decay, u) + times(inverse, leaf), state.momentum, way
        )
        # Not of the new momentum, which at a rate of 0 does not hold the way.
        out = jax.tree.map(
            lambda u, leaf: times(
                -slow_learning_rate, times(rate, times(decay, u)) + leaf
            ),
            state.momentum,
            way,
        )
        meeting = jnp.asarray(optax.safe_increment(state.meeting))
        return out, SlowMomentumState(meeting, momentum)

    return optax.GradientTransformationExtraArgs(init, update)
