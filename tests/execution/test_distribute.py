"""Tests of workers on devices: where arrays are, and on which meshes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import gmc_jax
from gmc_jax import all_gather, exact, top_k
from tests.support.harness import WORKERS, close, devices, simulate, start
from tests.support.vector_steps import (
    GMC,
    D,
    drive,
    drive_tx,
    loss_fn,
    state_of,
    step_of,
    targets,
)


def test_parameters_are_replicated_and_each_device_holds_its_own_residual():
    tx = GMC
    train, laid_out = gmc_jax.distribute(step_of(tx), state_of(tx), targets()[0])
    places = jax.tree.map(lambda leaf: leaf.sharding, laid_out)
    state, metrics = train(laid_out, targets()[0])

    params, (momentum, _) = state
    for leaf in jax.tree.leaves((params, momentum.momentum)):
        assert leaf.sharding.is_fully_replicated
        assert len(leaf.sharding.device_set) == WORKERS
        assert leaf.addressable_data(3).shape == leaf.shape
    residual = momentum.inner.residual
    for leaf, like in zip(
        jax.tree.leaves(residual), jax.tree.leaves(params), strict=True
    ):
        assert leaf.shape == (WORKERS, *like.shape)
        shards = leaf.addressable_shards
        assert [shard.data.shape for shard in shards] == [(1, *like.shape)] * WORKERS
        assert len({shard.device for shard in shards}) == WORKERS
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == places
    assert not metrics["loss"].sharding.is_fully_replicated
    # Ordinary arrays: whatever one does next, one can do with them.
    assert jnp.isfinite(loss_fn(params, targets()[0, 0]))


def test_the_state_of_gmc_is_one_residual_per_worker_and_one_shared_vector():
    tx = GMC
    state = state_of(tx)
    one = jax.tree.leaves(tx.init(start()))
    assert sum(leaf.size for leaf in one if leaf.ndim) == 2 * D
    assert sum(leaf.size for leaf in one if not leaf.ndim) < D / 2

    (_, simulated), _ = drive(simulate, step_of(tx), state, targets()[:1])
    leaves = jax.tree.leaves(simulated)
    assert sum(leaf.size for leaf in leaves if leaf.ndim) == (WORKERS + 1) * D

    (_, distributed), _ = drive(gmc_jax.distribute, step_of(tx), state, targets()[:1])
    for device in jax.devices():
        held = [
            shard.data
            for leaf in jax.tree.leaves(distributed)
            for shard in leaf.addressable_shards
            if shard.device == device
        ]
        assert sum(data.size for data in held if data.ndim) == 2 * D


MESHES = {
    "default of make_mesh": lambda: jax.make_mesh((8,), ("workers",)),
    "explicit": lambda: jax.make_mesh(
        (8,), ("workers",), axis_types=(AxisType.Explicit,)
    ),
    "four devices": lambda: Mesh(devices(4), ("workers",)),
    "backwards": lambda: Mesh(devices(8)[::-1], ("workers",)),
    "4 x 2": lambda: Mesh(devices(4, 2), ("workers", "model")),
    "2 x 4": lambda: Mesh(devices(2, 4), ("model", "workers")),
    "explicit 4 x 2": lambda: jax.make_mesh(
        (4, 2), ("workers", "model"), axis_types=(AxisType.Explicit,) * 2
    ),
    "one worker": lambda: Mesh(devices(1), ("workers",)),
    "one worker of 8 devices": lambda: Mesh(devices(1, 8), ("workers", "model")),
}


# Meshes with the parts of others.
ALIKE = {"explicit", "four devices", "2 x 4", "one worker"}


@functools.cache
def simulated(workers: int):
    tx = GMC

    def runner(step, state, batch):
        return gmc_jax.simulate(step, state, batch, workers)

    state, _ = drive_tx(runner, tx, targets(workers)[:4])
    return jax.tree.map(np.array, state)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in ALIKE else ())
        for name in MESHES
    ],
)
def test_any_mesh_with_the_axis_is_accepted(name):
    mesh = MESHES[name]()
    workers = mesh.shape["workers"]
    tx = GMC
    runner = functools.partial(gmc_jax.distribute, mesh=mesh)
    state, _ = drive_tx(runner, tx, targets(workers)[:4])

    close(jax.tree.map(np.array, state), simulated(workers))
    gmc_jax.assert_replicated(state)
    params, _ = state
    for leaf in jax.tree.leaves(params):
        assert leaf.sharding.is_fully_replicated
        assert leaf.sharding.device_set == set(mesh.devices.flat)


@pytest.mark.parametrize("name", ["explicit", "explicit 4 x 2"])
def test_an_explicit_mesh_may_be_set_and_hold_the_batch(name):
    mesh = MESHES[name]()
    workers = mesh.shape["workers"]
    tx = GMC
    runner = functools.partial(gmc_jax.distribute, mesh=mesh)
    place = NamedSharding(mesh, PartitionSpec("workers"))
    batches = [jax.device_put(batch, place) for batch in targets(workers)[:4]]
    with jax.set_mesh(mesh):
        state, _ = drive_tx(runner, tx, batches)
    close(jax.tree.map(np.array, state), simulated(workers))


def test_one_worker_runs_everywhere():
    tx = GMC
    step, state, batch = step_of(tx), state_of(tx), targets(1)[0]
    layout = gmc_jax.layout(step, state, batch, 1)
    axes = (layout.axes, 0)
    train = jax.pmap(step, axis_name="workers", in_axes=axes, out_axes=axes)
    state = layout.lay_out(state)
    for batch in targets(1)[:4]:
        state, _ = train(state, batch)
    close(jax.tree.map(np.array, state), simulated(1))


@pytest.mark.parametrize("workers", [None, 4])
def test_the_axis_may_have_another_name(workers):
    tx = gmc_jax.gmc(0.01, all_gather(top_k(0.2), axis_name="hosts"))
    step, state = step_of(tx), state_of(tx)
    if workers:
        train, state = gmc_jax.simulate(
            step, state, targets(4)[0], workers, axis_name="hosts"
        )
    else:
        mesh = Mesh(devices(4), ("hosts",))
        train, state = gmc_jax.distribute(
            step, state, targets(4)[0], mesh=mesh, axis_name="hosts"
        )
    for batch in targets(4)[:4]:
        state, _ = train(state, batch)
    close(jax.tree.map(np.array, state), simulated(4))


def test_a_mesh_without_the_axis_is_an_error():
    tx = gmc_jax.gmc(0.01, exact())
    state = state_of(tx)
    mesh = Mesh(devices(4, 2), ("data", "model"))
    message = (
        r"`mesh` must have an axis 'workers'.* axes \('data', 'model'\).*`axis_name`"
    )
    with pytest.raises(ValueError, match=message):
        gmc_jax.distribute(step_of(tx), state, targets()[0], mesh=mesh)


def test_workers_and_devices_must_match():
    tx = gmc_jax.gmc(0.01, exact())
    state = state_of(tx)
    message = r"leading axis of 4 workers .*shape \(8, 20\) for `batch`.*mesh's axis"
    with pytest.raises(ValueError, match=message):
        gmc_jax.distribute(
            step_of(tx), state, targets()[0], mesh=Mesh(devices(4), ("workers",))
        )


def test_mean_metrics_are_replicated_if_a_worker_has_several_devices():
    """Though what they are made of lies in parts, and XLA would leave it so."""
    mesh = Mesh(devices(2, 4), ("workers", "model"))
    split = NamedSharding(mesh, PartitionSpec("model"))
    weights = jax.device_put(jnp.arange(D, dtype="float32"), split)

    def step(state, batch):
        return state + jax.lax.pmean(batch, "workers"), {"weights": state}

    train, state = gmc_jax.distribute(
        step, weights, targets(2)[0], mesh=mesh, metrics="mean"
    )
    state, metrics = train(state, targets(2)[0])
    assert state.sharding.spec == PartitionSpec("model")
    assert metrics["weights"].is_fully_replicated
    np.testing.assert_array_equal(metrics["weights"], np.arange(D))


def test_no_step_starts_before_all_results_of_the_last_one_are_there(monkeypatch):
    """Else a CPU's devices would wait for each other, with 32 steps in flight."""

    def step(state, batch):
        grown = [jax.lax.fori_loop(0, 200, lambda _, x: x @ x, leaf) for leaf in state]
        mean = jax.lax.pmean(jax.tree.map(jnp.add, grown, batch), "workers")
        return mean, {"size": jnp.sum(mean[-1])}

    state = [jnp.eye(64) / 2] * 4
    batch = [jnp.zeros((8, 64, 64))] * 4
    train, state = gmc_jax.distribute(step, state, batch)
    run, results, ready = train._run, [], []

    def launch(state, batch):
        ready.append(all(leaf.is_ready() for leaf in results))
        found = run(state, batch)
        results[:] = jax.tree.leaves(found)
        return found

    monkeypatch.setattr(train, "_run", launch)
    for _ in range(12):
        state, _ = train(state, batch)
    assert all(ready)
    assert not all(leaf.is_ready() for leaf in results), "a step takes no time"
