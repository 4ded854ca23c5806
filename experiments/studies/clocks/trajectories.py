"""Trainings of one perceptron, step by step together or event by event apart."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gmc_jax
from experiments.studies.digits_problem import Problem


class Curve(NamedTuple):
    """Training losses, and the simulated seconds at which they were reached."""

    seconds: np.ndarray
    losses: np.ndarray

    def reaches(self, goal: float) -> float:
        """The seconds until the loss is first as low as this; infinite if never."""
        there = np.flatnonzero(self.losses <= goal)
        return float(self.seconds[there[0]]) if there.size else np.inf


def together(tx, problem: Problem, times: np.ndarray, workers: int) -> Curve:
    """A method whose workers step together, as often as there are times."""

    def step(state, batch):
        params, opt_state = state
        _, grads = problem.gradient(params, batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), {}

    everyone = jnp.arange(workers)
    batches = jax.vmap(lambda t: problem.batch(everyone, t))(jnp.arange(len(times)))
    state = problem.params, tx.init(problem.params)
    train, state = gmc_jax.simulate(step, state, batches[0], workers)

    @jax.jit
    def walk(state, batches):
        def on(state, batch):
            state, _ = train(state, batch)
            params = gmc_jax.evaluate(state[1], state[0], train.layout)
            return state, problem.loss(params)

        return jax.lax.scan(on, state, batches)[1]

    return Curve(times, np.asarray(walk(state, batches)))


def apart(
    method: gmc_jax.Asynchronous, problem: Problem, events, workers: int
) -> Curve:
    """A method without common steps; judged after every `workers` gradients."""
    counts = events.counts
    whole = len(counts) // workers * workers

    def blocks(values):
        return jnp.asarray(values[:whole]).reshape(-1, workers, *values.shape[1:])

    rows = gmc_jax.Event(
        blocks(events.worker), blocks(events.partner), blocks(events.reads)
    )

    @jax.jit
    def walk(state, rows, counts):
        def one(state, row):
            event, count = row
            batch = problem.batch(event.worker, count)
            return method.step(state, event, batch)

        def block(state, rows):
            state, _ = jax.lax.scan(one, state, rows)
            return state, problem.loss(method.evaluate(state))

        return jax.lax.scan(block, state, (rows, counts))[1]

    losses = walk(method.init(problem.params), rows, blocks(counts))
    return Curve(events.time[workers - 1 : whole : workers], np.asarray(losses))
