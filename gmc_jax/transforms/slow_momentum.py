"""Slow momentum: the outer momentum of SlowMo, over synchronisations."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmc_jax.core import Tree
from gmc_jax.transforms._learning_rate import over_rate, rate_at
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.trees import times, upcast_floating, zeros_to_accumulate


class SlowMomentumState(NamedTuple):
    """The state of slow momentum.

    Attributes:
      step: int32, updates so far; each is a synchronisation.
      momentum: u, in units of the inner optimizer's directions: its steps divided by
        its learning rate.
    """

    step: jax.Array
    momentum: Tree


@call_repr
def slow_momentum(
    slow_learning_rate: float,
    decay: float,
    learning_rate: optax.ScalarOrSchedule | None = None,
    *,
    period: int = 1,
) -> optax.GradientTransformationExtraArgs:
    """Moves the anchor by a momentum of the mean pseudo-gradients.

        u <- decay * u + (z - x) / lr;  z <- z - slow_learning_rate * lr * u

    It is the outer half of SlowMo, and stands behind a transformation that averages the
    pseudo-gradients z - x over workers. lr is the learning rate of the inner optimizer.
    Dividing by it makes u a sum of directions of equal weight, whatever the rate was
    when they were taken; a constant rate cancels. Both equations use the rate of the
    last local step before the synchronisation, as the published code does. Where this
    rate is 0, u decays and nothing is added to it, since the pseudo-gradient cannot be
    divided by 0. The anchor then moves by slow_learning_rate times the pseudo-gradient,
    z <- z - slow_learning_rate * (z - x).

    Args:
      slow_learning_rate: alpha in the paper, greater than 0; the paper uses 1.
      decay: beta in the paper, the slow momentum, in [0, 1).
      learning_rate: that of the inner optimizer: a number, or a schedule of its steps;
        None for 1.
      period: the local steps between two synchronisations, at least 1.

    Returns:
      A transformation for the outer optimizer of `periodic`, with `SlowMomentumState`.

    Raises:
      ValueError: if `decay` is not in [0, 1), `slow_learning_rate` is not finite and
        greater than 0, `period` is not a whole number of at least 1, or a rate is
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
        # After this many synchronisations the number of local steps overflows int32.
        most = (jnp.iinfo(jnp.int32).max - period + 1) // period
        last_local_step = period * jnp.minimum(state.step, most) + period - 1
        rate = rate_at(learning_rate, last_local_step)

        pseudo_gradient = upcast_floating(updates)
        inverse = over_rate(1, rate)
        momentum = jax.tree.map(
            lambda u, leaf: times(decay, u) + times(inverse, leaf),
            state.momentum,
            pseudo_gradient,
        )
        # Not from the new momentum: at a rate of 0 it lacks the pseudo-gradient.
        out = jax.tree.map(
            lambda u, leaf: times(
                -slow_learning_rate, times(rate, times(decay, u)) + leaf
            ),
            state.momentum,
            pseudo_gradient,
        )
        step = jnp.asarray(optax.safe_increment(state.step))
        return out, SlowMomentumState(step, momentum)

    return optax.GradientTransformationExtraArgs(init, update)
