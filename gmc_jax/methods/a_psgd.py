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
from gmc_jax.utils.described import described


class APSGDState(NamedTuple):
    """The state of the server and of what workers know.

    Attributes:
      params: the server's.
      inner: the state of the server's optimizer.
      known: what each worker last read, [workers, ...].
    """

    params: Tree
    inner: Tree
    known: Tree


@described
def a_psgd(
    inner: optax.GradientTransformation, *, gradient: Gradient, workers: int
) -> Asynchronous:
    """The server applies each gradient as it arrives, however old its parameters are.

        x <- x + inner(g(known_i));  known_i <- x when worker i next fetches it

    An exact, deterministic simulation, event by event, on one device: with the same
    events it gives the same numbers. The events, their order and their seconds, are
    those of `gmc_jax.timelines.server_events`, from a model of the clocks, in which all
    workers share the server's link; nothing here runs concurrently, and what is
    measured is simulated time.

    Args:
      inner: the server's optimizer, from gradients to steps. A gradient is one worker's
        alone: `workers` of them at a rate over `workers` go as far as one step of them
        together. A schedule counts the gradients of all.
      gradient: of the loss, as `jax.value_and_grad` makes it.
      workers: their number.

    Returns:
      An `Asynchronous`, whose state is `APSGDState`; it is judged at the server's
      parameters.

    Raises:
      TypeError: if `inner` is no transformation, or `gradient` no function.
      ValueError: if `workers` is not a whole number of at least 1; from `step` if the
        event is of another number of workers.

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
      With one worker it is `inner`, at each step.

    References:
      Recht, Re, Wright and Niu, "Hogwild!", NeurIPS 2011; Lian, Huang, Li and Liu,
      "Asynchronous Parallel Stochastic Gradient for Nonconvex Optimization", NeurIPS
      2015; what AD-PSGD is compared with.
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
        updates, own = inner.update(grads, state.inner, state.params)
        params = optax.apply_updates(state.params, updates)
        return APSGDState(params, own, read(state.known, params, event.reads)), loss

    def evaluate(state):
        return state.params

    return Asynchronous(init, step, evaluate)
