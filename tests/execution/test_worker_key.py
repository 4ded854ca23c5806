"""Tests of random keys in states, and of each worker's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax import worker_key
from tests.support.harness import WORKERS, pmap_too
from tests.support.vector_steps import D, drive, targets


@pmap_too
def test_the_state_may_hold_random_keys(runner):
    """Typed and raw ones, shared ones and a worker's own."""

    def step(state, batch):
        typed, raw, own, seed = state
        typed, draw = jax.random.split(typed)
        raw = jax.random.split(raw, 2)[0]
        own = jax.random.fold_in(own, jax.lax.axis_index("workers"))
        mine = worker_key(draw)
        metrics = {
            "shared": jax.random.uniform(draw),
            "raw": jax.random.uniform(raw),
            "own": jax.random.uniform(own),
            "worker_key": jax.random.uniform(mine),
            "raw worker_key": jax.random.uniform(worker_key(raw)),
        }
        return (typed, raw, own, worker_key(seed)), metrics

    keys = [jax.random.key(0), jax.random.PRNGKey(1), jax.random.key(2)]
    state = (*keys, jax.random.PRNGKey(3))
    state, metrics = drive(runner, step, state, targets()[:2])

    assert [leaf.shape for leaf in state] == [(), (2,), (WORKERS,), (WORKERS, 2)]
    for name, draws in metrics.items():
        distinct = 1 if name in ("shared", "raw") else WORKERS
        assert [len(set(step)) for step in draws.tolist()] == [distinct] * 2
        assert len(set(draws.ravel().tolist())) == 2 * distinct

    typed = jax.random.key(0)
    for t in range(2):
        typed, draw = jax.random.split(typed)
        expected = [
            jax.random.uniform(jax.random.fold_in(draw, k)) for k in range(WORKERS)
        ]
        np.testing.assert_allclose(metrics["worker_key"][t], expected, rtol=1e-6)


@pmap_too
def test_leaves_that_differ_start_from_the_given_values(runner):
    def step(state, batch):
        weights, key = state
        return (weights + batch, worker_key(key)), (weights, jax.random.uniform(key))

    state = jnp.arange(1.0, D + 1), jax.random.key(5)
    state, (weights, draws) = drive(runner, step, state, targets()[:2])
    np.testing.assert_array_equal(weights[0], [np.arange(1.0, D + 1)] * WORKERS)
    np.testing.assert_allclose(weights[1], weights[0] + targets()[0], rtol=1e-6)
    first = jax.random.key(5)
    assert set(draws[0].tolist()) == {float(jax.random.uniform(first))}
    expected = [jax.random.uniform(jax.random.fold_in(first, k)) for k in range(8)]
    np.testing.assert_allclose(draws[1], expected, rtol=1e-6)


def test_worker_key_needs_the_axis():
    with pytest.raises(NameError, match="`worker_key` needs the named axis 'workers'"):
        worker_key(jax.random.key(0))
