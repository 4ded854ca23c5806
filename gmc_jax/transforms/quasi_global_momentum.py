"""Quasi-global momentum: each worker's momentum of how far its parameters moved."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmc_jax.core import Tree
from gmc_jax.transforms._learning_rate import over_rate, rate_at
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.trees import times, upcast, upcast_floating, zeros_to_accumulate


class QuasiGlobalMomentumState(NamedTuple):
    """The state of quasi-global momentum.

    Attributes:
      step: int32, updates so far.
      momentum: the mean of past moves of this worker, recent ones weighing more, in
        units of gradients; float32 for 16-bit trees. It differs between workers.
      inner: the state of the inner transformation.
    """

    step: jax.Array
    momentum: Tree
    inner: Tree


@call_repr
def quasi_global_momentum(
    inner: optax.GradientTransformation,
    decay: float,
    buffer_decay: float,
    learning_rate: optax.ScalarOrSchedule | None = None,
    *,
    nesterov: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Adds a momentum of how far the worker and its neighbours moved it.

        m = decay * v_i + g_i;  with `nesterov` m = g_i + decay * (decay * v_i + g_i)
        out = inner(m)
        v_i <- buffer_decay * v_i + (1 - buffer_decay) * (-out / lr)

    It stands around the step and the average of a gossip method:
    `quasi_global_momentum(chain(lr, adapt_then_combine(channel)), ...)`. Then out is
    the move x' - x of this worker, with what its neighbours changed. The momentum m of
    the gradient itself is not kept. Where lr = 0 a move has no length in units of
    gradients: nothing is added to v, which decays, as in `slow_momentum`.

    Args:
      inner: from gradients to steps, learning rate and average included.
      decay: beta in the paper, how much of v is added to a gradient, in [0, 1).
      buffer_decay: mu in the paper, how much of v is kept at each step, in [0, 1).
      learning_rate: the rate of `inner`: a number, a schedule, or an array injected by
        `optax.inject_hyperparams`; None for 1.
      nesterov: whether the momentum is Nesterov's, as in `optax.sgd`.

    Returns:
      A transformation from gradients to steps, with `QuasiGlobalMomentumState`.

    Raises:
      TypeError: if `inner` is not a transformation, or `nesterov` not a bool.
      ValueError: if `decay` or `buffer_decay` is not in [0, 1), or a rate is negative
        or not finite.

    Guarantees:
      With `decay = 0` it is `inner`.

    References:
      Lin, Karimireddy, Stich and Jaggi, "Quasi-Global Momentum: Accelerating
      Decentralized Deep Learning on Heterogeneous Data", ICML 2021.
    """
    checks.transformation(inner=inner)
    checks.decay(decay=decay)
    checks.decay(buffer_decay=buffer_decay)
    checks.flag(nesterov=nesterov)
    if learning_rate is not None:
        checks.learning_rate(learning_rate=learning_rate)
    inner = optax.with_extra_args_support(inner)

    def init(params):
        return QuasiGlobalMomentumState(
            jnp.zeros((), jnp.int32), zeros_to_accumulate(params), inner.init(params)
        )

    def update(updates, state, params=None, **extra_args):
        def add(g: jax.Array, v: jax.Array) -> jax.Array:
            momentum = times(decay, v) + g
            return times(decay, momentum) + g if nesterov else momentum

        rate = rate_at(learning_rate, state.step)
        inverse = over_rate(1, rate)
        ahead = jax.tree.map(add, upcast_floating(updates), state.momentum)
        out, inner_state = inner.update(ahead, state.inner, params, **extra_args)
        momentum = jax.tree.map(
            lambda v, move: (
                times(buffer_decay, v) - times((1 - buffer_decay) * inverse, move)
            ),
            state.momentum,
            upcast(out),
        )
        step = jnp.asarray(optax.safe_increment(state.step))
        return out, QuasiGlobalMomentumState(step, momentum, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)
