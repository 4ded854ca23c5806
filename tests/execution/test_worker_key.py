"""Tests of random keys in states, and of each worker's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gmc_jax import worker_key, worker_rngs
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


class Layers(nnx.Module):
    """Dropout twice, once with a key for each of two layers."""

    def __init__(self, rngs):
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.keys = nnx.Rngs(9).split(2)
        self.scale = nnx.Param(jnp.ones(3))


def over_workers(function, *arguments):
    """One worker's function, of all workers."""
    return jax.vmap(
        lambda worker: function(*arguments), axis_name="workers", axis_size=3
    )(jnp.arange(3))


def test_worker_rngs_folds_the_index_into_every_key_alone():
    pair = jax.random.split(jax.random.key(1), 2)
    others = {"count": jnp.uint32(4), "halves": jnp.zeros(2, jnp.uint32), "rate": 0.5}
    tree = {"key": jax.random.key(0), "keys": pair, **others}
    own = over_workers(worker_rngs, tree)
    key = over_workers(worker_key, tree["key"])
    assert (own["key"] == key).all()
    for place in range(2):
        key = over_workers(worker_key, pair[place])
        assert (own["keys"][:, place] == key).all()
    for name, value in others.items():
        np.testing.assert_array_equal(own[name], [value] * 3)


def test_worker_rngs_of_nnx_draw_apart_and_count_on():
    """Of `nnx.Rngs`, and of a model's state; both count in the trace that made them."""
    rngs = nnx.Rngs(3)

    def draws():
        own = worker_rngs(rngs)
        return jax.random.uniform(own.dropout()), jax.random.uniform(own.dropout())

    first, second = over_workers(draws)
    assert len({*first.tolist(), *second.tolist()}) == 6

    graph, rest = nnx.split(Layers(nnx.Rngs(0)))

    def dropped():
        model = nnx.merge(graph, worker_rngs(rest))
        return model.dropout(jnp.ones(64)), nnx.state(model)

    masks, state = over_workers(dropped)
    assert len({tuple(mask) for mask in masks.tolist()}) == 3
    np.testing.assert_array_equal(state["dropout"]["rngs"]["count"][...], [1] * 3)
    np.testing.assert_array_equal(state["scale"][...], np.ones((3, 3)))


def test_worker_rngs_needs_the_axis_and_a_key():
    with pytest.raises(NameError, match="`worker_rngs` needs the named axis"):
        worker_rngs(jax.random.key(0))
    for tree in ({}, {"raw": jax.random.PRNGKey(0)}):
        with pytest.raises(ValueError, match="must hold a typed random key"):
            over_workers(worker_rngs, tree)
