"""Tests of inner optimizers whose states depend on the parameters.

Workers move apart until they synchronise. From then on all gradients are zero, so any
further move comes from such a state.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import (
    accumulate,
    all_gather,
    average_buffers,
    averaged,
    choco_sgd,
    cocod_sgd,
    count_entries,
    cser,
    d2,
    dense,
    ef_sgd,
    exact,
    gossip,
    gossip_differences,
    gradient_tracking,
    local_sgd,
    lookahead,
    maintain_buffers,
    no_communication,
    push_sum,
    qsparse_local_sgd,
    reset_buffers,
    sgp,
    slowmo,
    top_k,
    topologies,
)
from gmc_jax.transforms.sync_hooks import on_sync, sync_weighted

RING = topologies.ring(4)
UNEVEN = topologies.pushing(np.triu(np.ones((4, 4))) + np.eye(4, k=-1))


def targets() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def walk(tx, pulls: int, rests: int) -> np.ndarray:
    """The parameters [steps + 1, workers, d], from 0 towards each worker's target."""
    pulling = np.arange(pulls + rests) < pulls

    def worker(target):
        def on(state, pulled):
            params, inner = state
            grads = {"a": jnp.where(pulled, params["a"] - target, 0)}
            updates, inner = tx.update(grads, inner, params)
            new: Any = optax.apply_updates(params, updates)
            return (new, inner), new["a"]

        params = {"a": jnp.zeros(3)}
        points: Any
        _, points = jax.lax.scan(on, (params, tx.init(params)), pulling)
        return jnp.concatenate([jnp.zeros((1, 3)), points])

    workers = jax.vmap(worker, out_axes=1, axis_name="workers")
    return np.asarray(jax.jit(workers)(targets()))


def spread(points: np.ndarray) -> np.ndarray:
    """The distance between workers, [steps + 1]."""
    return np.ptp(points, axis=1).max(axis=1)


INNER = {
    "cser": lambda: cser(
        0.1, all_gather(top_k(0.4)), exact(), period=100, momentum=0.0
    ),
    "lookahead": lambda: lookahead(optax.sgd(0.1), no_communication(), period=5),
    "nested": lambda: slowmo(
        optax.sgd(0.1), no_communication(), period=4, slow_momentum=0.0
    ),
    "d2": lambda: d2(0.1, topologies.complete(4)),
    "sgp": lambda: sgp(0.1, UNEVEN),
}


@pytest.mark.parametrize("name", INNER)
def test_workers_stay_together_after_a_synchronisation(name):
    points = walk(slowmo(INNER[name](), exact(), period=10, slow_momentum=0.5), 10, 9)
    apart = spread(points)
    if name != "d2":  # Which gossips on the complete graph.
        assert apart[9] > 0.1
    assert apart[10:].max() < 1e-5
    assert np.abs(points[10]).max() > 0.01
    if name != "d2":  # Whose corrections go on: it gives back what gossip took.
        np.testing.assert_allclose(points[11:], points[10:11] + 0 * points[11:], 1e-4)


CONSERVING = {
    "osgp": lambda: sgp(0.1, UNEVEN, delay=2),
    "accumulated": lambda: accumulate(optax.sgd(0.3), 3),
    "ef": lambda: ef_sgd(0.1, all_gather(top_k(0.4))),
    "cser": lambda: cser(0.1, all_gather(top_k(0.4)), exact(), period=7, momentum=0.0),
    "d2": lambda: d2(0.1, topologies.lazy(RING)),
    "choco_sgd": lambda: choco_sgd(0.1, gossip_differences(RING, dense(), 0.5)),
    "track_gradients": lambda: gradient_tracking(0.1, RING),
    "nested": lambda: local_sgd(0.1, exact(), period=4, buffers=reset_buffers()),
    "cocod_sgd": lambda: cocod_sgd(optax.sgd(0.1), all_gather(top_k(0.4)), period=4),
    "qsparse_local_sgd": lambda: qsparse_local_sgd(
        0.1, all_gather(top_k(0.4)), period=4
    ),
}
EVERY = itertools.product(CONSERVING, ["reset", "average", "maintain"])
SOON = [("osgp", "reset"), ("accumulated", "reset")]
LATE = [one for one in EVERY if one not in SOON]


@pytest.mark.parametrize(
    ("name", "buffers"),
    [*SOON, *(pytest.param(*one, marks=pytest.mark.slow) for one in LATE)],
)
def test_the_mean_of_all_steps_is_taken_in_the_end(name, buffers):
    """No synchronisation loses what the inner state conserves."""
    strategy = {
        "reset": reset_buffers(),
        "average": average_buffers(exact()),
        "maintain": maintain_buffers(),
    }[buffers]
    tx = slowmo(
        CONSERVING[name](), exact(), period=10, slow_momentum=0.0, buffers=strategy
    )
    points = walk(tx, 12, 60)
    steps = -0.1 * (points[:12] - targets())
    np.testing.assert_allclose(points[-1], points[-1:, :1][0] + 0 * points[-1], 1e-4)
    expected = steps.mean(axis=1).sum(axis=0)
    np.testing.assert_allclose(points[-1].mean(axis=0), expected, rtol=1e-4)


def test_messages_in_flight_move_too():
    """They do not pull workers back from the anchor that slow momentum moved."""
    peers = topologies.one_peer_exponential(4)
    points = walk(
        slowmo(sgp(0.1, peers, delay=1), exact(), period=10, slow_momentum=0.8),
        20,
        9,
    )
    jump = points[20].mean(axis=0) - points[19].mean(axis=0)
    assert np.abs(jump).max() > 0.03
    after = points[21:].mean(axis=1) - points[20].mean(axis=0)
    assert np.abs(after).max() < 0.2 * np.abs(jump).max()


@pytest.mark.parametrize(
    "inner", [d2(0.1, topologies.complete(4)), sgp(0.1, UNEVEN)], ids=["d2", "sgp"]
)
def test_an_inner_optimizer_of_some_leaves(inner):
    """Its trees are masked; those of `periodic` are whole."""
    parts = optax.partition(
        {"one": inner, "other": optax.sgd(0.1)}, {"a": "one", "b": "other"}
    )
    tx = slowmo(parts, exact(), period=1, slow_momentum=0.5)

    def worker(target):
        params = {"a": jnp.zeros(3), "b": jnp.zeros(2)}
        grads = {"a": target, "b": target[:2]}
        state = tx.init(params)
        for _ in range(3):
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params

    ends = jax.jit(jax.vmap(worker, axis_name="workers"))(targets())
    np.testing.assert_allclose(ends["a"], ends["a"][:1].repeat(4, 0), atol=1e-6)
    np.testing.assert_allclose(ends["a"][:, :2], ends["b"], atol=1e-5)


def test_weights_in_flight_are_found_behind_other_channels():
    tx = push_sum(count_entries(gossip(RING, delay=1)))
    params = {"a": jnp.ones(3)}
    state: Any = tx.init(params)
    flying = ({"a": jnp.zeros(3)}, {"a": jnp.float32(0.25)})
    inner = state.channel.inner._replace(in_flight=(flying,))
    channel = state.channel._replace(inner=inner)
    state = state._replace(weight={"a": jnp.float32(0.5)}, channel=channel)
    np.testing.assert_array_equal(sync_weighted(params, state)["a"], 0.75)
    kept: Any = on_sync(state, params, {"a": 2 * jnp.ones(3)})
    np.testing.assert_array_equal(kept.weight["a"], 0.5)
    ((numerators, _),) = kept.channel.inner.in_flight
    np.testing.assert_array_equal(numerators["a"], 0.25)
    there = averaged(exact()).init(params)
    assert on_sync(there, params, params) == there
