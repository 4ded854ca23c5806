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
from gmc_jax.utils.described import described
from gmc_jax.utils.trees import upcast


class ADPSGDState(NamedTuple):
    """The state of all workers.

    Attributes:
      params: x, [workers, ...].
      inner: the states of the workers' optimizers, [workers, ...].
      known: what each worker last read of its own x, [workers, ...].
    """

    params: Tree
    inner: Tree
    known: Tree


@described
def ad_psgd(
    inner: optax.GradientTransformation, *, gradient: Gradient, workers: int
) -> Asynchronous:
    """Each worker averages with one neighbour and steps, whenever it is ready.

        x_i, x_j <- (x_i + x_j) / 2               j a neighbour, drawn anew each time
        x_i <- x_i + inner(g(known_i));  known_i <- x_i

    An exact, deterministic simulation, event by event, on one device: with the same
    events it gives the same numbers. The events, their order and their seconds, are
    those of `gmc_jax.timelines.neighbour_events`, from a model of the clocks; nothing
    here runs concurrently, and what is measured is simulated time. A gradient is stale
    where its worker was averaged with while it computed.

    Args:
      inner: each worker's own optimizer, from gradients to steps: `optax.sgd` in the
        paper. A schedule counts the worker's own gradients.
      gradient: of the loss, as `jax.value_and_grad` makes it.
      workers: their number.

    Returns:
      An `Asynchronous`, whose state is `ADPSGDState`; it is judged at the mean of x.

    Raises:
      TypeError: if `inner` is no transformation, or `gradient` no function.
      ValueError: if `workers` is not a whole number of at least 1; from `step` if the
        event is of another number of workers.

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
      The mean of x moves by the step of one gradient over the number of workers at each
      event, whatever is stale and whoever averages.

    References:
      Lian, Zhang, Zhang and Liu, "Asynchronous Decentralized Parallel Stochastic
      Gradient Descent", ICML 2018: Algorithm 1.
    """
    checks.positive_int(workers=workers)
    checks.transformation(inner=inner)
    checks.function(gradient=gradient)
    inner = with_float32_state(inner)

    def init(params):
        own = stack(inner.init(params), workers)
        return ADPSGDState(stack(params, workers), own, stack(params, workers))

    def step(state, event, batch):
        check_event(event, workers)
        loss, grads = gradient(take(state.known, event.worker), batch)
        here = take(state.params, event.worker)
        there = take(state.params, event.partner)

        def average(x: jax.Array, y: jax.Array, like: jax.Array) -> jax.Array:
            return ((x + y) / 2).astype(like.dtype)

        middle = jax.tree.map(average, upcast(here), upcast(there), here)
        updates, own = inner.update(grads, take(state.inner, event.worker), middle)
        params = put(state.params, event.partner, middle)
        params = put(params, event.worker, optax.apply_updates(middle, updates))
        return ADPSGDState(
            params,
            put(state.inner, event.worker, own),
            read(state.known, params, event.reads),
        ), loss

    def evaluate(state):
        return jax.tree.map(
            lambda x: jnp.mean(upcast(x), axis=0).astype(x.dtype), state.params
        )

    return Asynchronous(init, step, evaluate)
