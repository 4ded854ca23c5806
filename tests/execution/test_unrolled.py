"""`unrolled`: the same values as batched, from one call of the function a worker."""

import jax
import jax.numpy as jnp
import pytest

import gmc_jax
from tests.support.harness import (
    WORKERS,
    close,
    every_runner,
    pull,
    simulate,
    start,
    targets,
)

BATCH = jax.tree.map(lambda leaf: leaf[0], targets(start(), 1))


def test_unrolled_gives_the_same_values_as_batched():
    """Of arguments that differ and that do not, in trees, and of tuples of results."""

    def fn(params, batch, scale):
        loss, grads = jax.value_and_grad(pull)(params, batch["target"])
        return {"loss": scale * loss}, grads, scale

    batch = {"target": BATCH, "unused": jnp.zeros((WORKERS, 0))}
    arguments = start(), batch, jnp.float32(2)

    def over_workers(fn):
        return jax.jit(jax.vmap(fn, in_axes=(None, 0, None)))(*arguments)

    close(over_workers(gmc_jax.unrolled(fn)), over_workers(fn))

    own = jax.tree.map(lambda leaf: leaf[3], batch)
    outside = gmc_jax.unrolled(fn)(start(), own, jnp.float32(2))
    close(outside, fn(start(), own, jnp.float32(2)))


def test_unrolled_runs_the_function_once_a_worker_under_simulate_alone():
    shapes = set()

    def own_gradient(params, batch):
        shapes.update(leaf.shape for leaf in jax.tree.leaves(batch))
        return jax.grad(pull)(params, batch)

    def step(state, batch):
        grads = gmc_jax.unrolled(own_gradient)(state, batch)
        mean = jax.tree.map(lambda g: jax.lax.pmean(g, "workers"), grads)
        return jax.tree.map(lambda w, g: w - 0.01 * g, state, mean), grads

    def calls(train, state):
        return train.lower(state, BATCH).as_text().count("call @own_gradient")

    train, state = simulate(step, start(), BATCH)
    assert calls(train, state) == WORKERS
    simulated, grads = train(state, BATCH)

    train, state = gmc_jax.distribute(step, start(), BATCH)
    assert calls(train, state) == 1
    distributed, own = train(state, BATCH)
    assert shapes == {leaf.shape for leaf in jax.tree.leaves(start())}
    close(grads, gmc_jax.fetch(own))
    close(simulated, gmc_jax.fetch(distributed))


@pytest.mark.parametrize(
    ("inner", "name"),
    [
        (lambda w, b: jax.lax.pmean(w - b, "workers"), "psum"),
        (lambda w, b: gmc_jax.exact().average(w - b, ())[0], "psum"),
        (lambda w, b: (w - b) * jax.lax.axis_index("workers"), "axis_index"),
        (lambda w, b: jax.jit(lambda w: jax.lax.pmax(w, "workers"))(w), "pmax"),
    ],
)
@every_runner
def test_a_collective_inside_is_named(inner, name, runner):
    """The kind: errors without words from within JAX; before, an AssertionError."""

    def step(state, batch):
        grads = gmc_jax.unrolled(inner)(state, batch)
        return state - jax.lax.pmean(grads, "workers"), {}

    message = rf"must not use a named axis.* got `{name}` over 'workers'.*outside"
    with pytest.raises(ValueError, match=message):
        runner(step, jnp.zeros(3), jnp.ones((WORKERS, 3)))


def test_a_function_may_use_an_axis_of_its_own():
    def inner(w, b):
        rows = jax.vmap(lambda x: x - jax.lax.pmean(x, "rows"), axis_name="rows")
        return rows(w - b)

    def step(state, batch):
        grads = gmc_jax.unrolled(inner)(state, batch)
        return state - jax.lax.pmean(grads, "workers"), {}

    gmc_jax.layout(step, jnp.zeros(3), jnp.ones((WORKERS, 3)), WORKERS)
