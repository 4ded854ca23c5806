"""AD-PSGD, asynchronous decentralised parallel SGD, as an event simulation."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmc_jax.core import Tree
from gmc_jax.methods.asynchronous import (
    Asynchronous,
    Gradient,
    check_event,
    put,
    read,
    stack,
    take,
)
from gmc_jax.transforms.with_float32_state import with_float32_state
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.trees import upcast


class ADPSGDState(NamedTuple):
    """The state of all workers.

    Attributes:
      params: x, the parameters of each worker, [workers, ...].
      inner: the states of the inner optimizers, [workers, ...].
      known: y, each worker's own parameters when it last read them, [workers, ...].
    """

    params: Tree
    inner: Tree
    known: Tree


@call_repr
def ad_psgd(
    inner: optax.GradientTransformation, *, gradient: Gradient, workers: int
) -> Asynchronous:
    """Averages a worker with one neighbour whenever its gradient is ready.

        x_i, x_j <- (x_i + x_j) / 2              j a neighbour, drawn for each event
        x_i <- x_i + inner(g_i), taken at y_i;  y_i <- x_i

    The simulation is exact and deterministic. It runs event by event on one device, and
    the same events give the same numbers. `gmc_jax.timelines.neighbour_events` computes
    the events, their order and their seconds, from a model of the clocks. Nothing runs
    concurrently: measured times are simulated times. A gradient is stale if a neighbour
    averaged with its worker while the gradient was computed.

    Args:
      inner: the inner optimizer, one for each worker, from gradients to steps, learning
        rate included; `optax.sgd` in the paper. A schedule counts the worker's own
        gradients.
      gradient: `(params, batch) -> (loss, gradient)`, as `jax.value_and_grad` makes it.
      workers: the number of workers, at least 1.

    Returns:
      An `Asynchronous` with `ADPSGDState`. The model is evaluated at the mean over
      workers of x.

    Raises:
      TypeError: if `inner` is not a transformation, or `gradient` not a function.
      ValueError: if `workers` is not a whole number of at least 1; from `step` if the
        event is for another number of workers.

    Example:
      >>> import gmc_jax, jax, jax.numpy as jnp, optax
      >>> from gmc_jax import paces, timelines, topologies
      >>> def loss(params, batch):
      ...     return jnp.sum((params - batch) ** 2)
      >>> method = gmc_jax.ad_psgd(
      ...     optax.sgd(0.1), gradient=jax.value_and_grad(loss), workers=4
      ... )
      >>> events = timelines.neighbour_events(
      ...     paces.straggler(4, factor=10), 100, 12, timelines.Link(),
      ...     topologies.ring(4)
      ... )
      >>> state, step = method.init(jnp.zeros(3)), jax.jit(method.step)
      >>> for event in events.rows():
      ...     state, loss = step(state, event, jnp.ones(3))

    Guarantees:
      At each event the mean over workers of x moves by the step of one gradient divided
      by the number of workers, however stale the gradient is and whichever two workers
      average.

    References:
      Lian, Zhang, Zhang and Liu, "Asynchronous Decentralized Parallel Stochastic
      Gradient Descent", ICML 2018: Algorithm 1.
    """
    checks.positive_int(workers=workers)
    checks.transformation(inner=inner)
    checks.function(gradient=gradient)
    inner = with_float32_state(inner)

    def init(params):
        inner_states = stack(inner.init(params), workers)
        return ADPSGDState(stack(params, workers), inner_states, stack(params, workers))

    def step(state, event, batch):
        check_event(event, workers)
        loss, grads = gradient(take(state.known, event.worker), batch)
        own = take(state.params, event.worker)
        partners = take(state.params, event.partner)

        def average(x: jax.Array, y: jax.Array, like: jax.Array) -> jax.Array:
            return ((x + y) / 2).astype(like.dtype)

        mean = jax.tree.map(average, upcast(own), upcast(partners), own)
        inner_state = take(state.inner, event.worker)
        updates, inner_state = inner.update(grads, inner_state, mean)
        params = put(state.params, event.partner, mean)
        params = put(params, event.worker, optax.apply_updates(mean, updates))
        return ADPSGDState(
            params,
            put(state.inner, event.worker, inner_state),
            read(state.known, params, event.reads),
        ), loss

    def evaluate(state):
        return jax.tree.map(
            lambda x: jnp.mean(upcast(x), axis=0).astype(x.dtype), state.params
        )

    return Asynchronous(init, step, evaluate)
