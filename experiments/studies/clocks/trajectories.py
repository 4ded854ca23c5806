"""Trains one perceptron synchronously, or event by event with asynchronous workers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gmc_jax
from experiments.studies.digits_problem import Problem


class Curve(NamedTuple):
    """Training losses, and the simulated seconds at which they are reached."""

    seconds: np.ndarray
    losses: np.ndarray

    def reaches(self, goal: float) -> float:
        """The seconds until the loss is at most `goal`; infinite if it never is."""
        reached = np.flatnonzero(self.losses <= goal)
        return float(self.seconds[reached[0]]) if reached.size else np.inf


def synchronous(tx, problem: Problem, times: np.ndarray, workers: int) -> Curve:
    """Trains workers that step together, one step for each time in `times`."""

    def step(state, batch):
        params, opt_state = state
        _, grads = problem.gradient(params, batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), {}

    indices = jnp.arange(workers)
    batches = jax.vmap(lambda t: problem.batch(indices, t))(jnp.arange(len(times)))
    state = problem.params, tx.init(problem.params)
    train, state = gmc_jax.simulate(step, state, batches[0], workers)

    @jax.jit
    def losses(state, batches):
        def advance(state, batch):
            state, _ = train(state, batch)
            params = gmc_jax.evaluate(state[1], state[0], train.layout)
            return state, problem.loss(params)

        return jax.lax.scan(advance, state, batches)[1]

    return Curve(times, np.asarray(losses(state, batches)))


def asynchronous(
    method: gmc_jax.Asynchronous, problem: Problem, events, workers: int
) -> Curve:
    """Trains workers without common steps; evaluates every `workers` gradients."""
    counts = events.counts
    total = len(counts) // workers * workers

    def blocks(values):
        return jnp.asarray(values[:total]).reshape(-1, workers, *values.shape[1:])

    rows = gmc_jax.Event(
        blocks(events.worker), blocks(events.partner), blocks(events.reads)
    )

    @jax.jit
    def losses(state, rows, counts):
        def one_event(state, row):
            event, count = row
            batch = problem.batch(event.worker, count)
            return method.step(state, event, batch)

        def block(state, rows):
            state, _ = jax.lax.scan(one_event, state, rows)
            return state, problem.loss(method.evaluate(state))

        return jax.lax.scan(block, state, (rows, counts))[1]

    times = events.time[workers - 1 : total : workers]
    start = method.init(problem.params)
    return Curve(times, np.asarray(losses(start, rows, blocks(counts))))
