"""A-PSGD, asynchronous SGD with a parameter server, as an event simulation."""

from __future__ import annotations

from typing import NamedTuple

import optax

from gmc_jax.core import Tree
from gmc_jax.methods.asynchronous import (
    Asynchronous,
    Gradient,
    check_event,
    read,
    stack,
    take,
)
from gmc_jax.transforms.with_float32_state import with_float32_state
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


class APSGDState(NamedTuple):
    """The state of the server and of its workers.

    Attributes:
      params: x, the server's parameters.
      inner: the state of the inner optimizer.
      known: y, the parameters that each worker last read, [workers, ...].
    """

    params: Tree
    inner: Tree
    known: Tree


@call_repr
def a_psgd(
    inner: optax.GradientTransformation, *, gradient: Gradient, workers: int
) -> Asynchronous:
    """Applies each gradient on a server as it arrives, however stale it is.

        x <- x + inner(g_i), taken at y_i
        y_i <- x when worker i next reads the parameters

    The simulation is exact and deterministic. It runs event by event on one device, and
    the same events give the same numbers. `gmc_jax.timelines.server_events` computes
    the events, their order and their seconds, from a model of the clocks in which all
    workers share the server's link. Nothing runs concurrently: measured times are
    simulated times.

    Args:
      inner: the inner optimizer, which the server applies to each gradient, from
        gradients to steps, learning rate included. A gradient is that of one worker: a
        rate divided by `workers` makes `workers` gradients go as far as one step on
        their mean. A schedule counts the gradients of all workers.
      gradient: `(params, batch) -> (loss, gradient)`, as `jax.value_and_grad` makes it.
      workers: the number of workers, at least 1.

    Returns:
      An `Asynchronous` with `APSGDState`. The model is evaluated at the server's
      parameters.

    Raises:
      TypeError: if `inner` is not a transformation, or `gradient` not a function.
      ValueError: if `workers` is not a whole number of at least 1; from `step` if the
        event is for another number of workers.

    Example:
      >>> import gmc_jax, jax, jax.numpy as jnp, optax
      >>> from gmc_jax import paces, timelines
      >>> def loss(params, batch):
      ...     return jnp.sum((params - batch) ** 2)
      >>> method = gmc_jax.a_psgd(
      ...     optax.sgd(0.1), gradient=jax.value_and_grad(loss), workers=4
      ... )
      >>> link = timelines.Link(latency=1e-3, bandwidth=1e6)
      >>> events = timelines.server_events(
      ...     paces.constant(4), 100, 12, link
      ... )
      >>> state, step = method.init(jnp.zeros(3)), jax.jit(method.step)
      >>> for event in events.rows():
      ...     state, loss = step(state, event, jnp.ones(3))

    Guarantees:
      With one worker it is `inner` at each step.

    References:
      Recht, Re, Wright and Niu, "Hogwild!", NeurIPS 2011; Lian, Huang, Li and Liu,
      "Asynchronous Parallel Stochastic Gradient for Nonconvex Optimization", NeurIPS
      2015. The AD-PSGD paper compares with it.
    """
    checks.positive_int(workers=workers)
    checks.transformation(inner=inner)
    checks.function(gradient=gradient)
    inner = with_float32_state(inner)

    def init(params):
        return APSGDState(params, inner.init(params), stack(params, workers))

    def step(state, event, batch):
        check_event(event, workers)
        loss, grads = gradient(take(state.known, event.worker), batch)
        updates, inner_state = inner.update(grads, state.inner, state.params)
        params = optax.apply_updates(state.params, updates)
        known = read(state.known, params, event.reads)
        return APSGDState(params, inner_state, known), loss

    def evaluate(state):
        return state.params

    return Asynchronous(init, step, evaluate)
