"""Tests of steps that are made of shapes: their programs are those of arrays."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gmc_jax
from gmc_jax import all_gather, top_k

TX = gmc_jax.gmc(0.1, all_gather(top_k(0.25)))
SPLIT = {"bias": (None,), "in": (None, "model"), "out": ("model",)}
SHAPES = {"bias": (8,), "in": (6, 8), "out": (8, 4)}


def step(state, batch):
    params, opt_state, key = state
    updates, opt_state = TX.update(batch, opt_state, params)
    params = jax.tree.map(lambda leaf, update: leaf + update, params, updates)
    return (params, opt_state, jax.random.split(key)[0]), {"first": batch["bias"][0]}


def mesh_of(workers: int) -> Mesh:
    devices = np.array(jax.devices())
    if workers == 8:
        return Mesh(devices, ("workers",))
    return Mesh(devices.reshape(workers, -1), ("workers", "model"))


def arrays(mesh: Mesh):
    """The state of one worker and a batch; on two axes the state is split."""
    params = {
        name: jax.device_put(
            np.ones(shape, np.float32),
            NamedSharding(mesh, PartitionSpec(*SPLIT[name])),
        )
        if "model" in mesh.shape
        else np.ones(shape, np.float32)
        for name, shape in SHAPES.items()
    }
    batch = {
        name: np.ones((mesh.shape["workers"], *shape), np.float32)
        for name, shape in SHAPES.items()
    }
    return (params, TX.init(params), jax.random.key(0)), batch


def shapes_of(tree):
    """The shapes of a tree, with shardings where the leaves are placed."""

    def shape(leaf):
        sharding = leaf.sharding if isinstance(leaf, jax.Array) else None
        if not isinstance(sharding, NamedSharding):
            sharding = None
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(shape, tree)


@pytest.mark.parametrize("workers", [8, 2])
def test_the_program_of_shapes_is_that_of_arrays(workers):
    mesh = mesh_of(workers)
    state, batch = arrays(mesh)
    train, placed = gmc_jax.distribute(step, state, batch, mesh=mesh)
    text = train.lower(placed, batch).as_text()
    params, *_ = given = shapes_of(state)
    # Of the state's own shapes, and of those that `eval_shape` leaves unplaced.
    for shapes in (given, (params, jax.eval_shape(TX.init, params), given[2])):
        of_shapes, laid_out = gmc_jax.distribute(
            step, shapes, shapes_of(batch), mesh=mesh, replicated=lambda state: state[0]
        )
        for shape, array in zip(
            jax.tree.leaves(laid_out), jax.tree.leaves(placed), strict=True
        ):
            assert isinstance(shape, jax.ShapeDtypeStruct)
            assert (shape.shape, shape.dtype) == (array.shape, array.dtype)
            assert shape.sharding == array.sharding
        assert of_shapes.lower(laid_out, shapes_of(batch)).as_text() == text


def test_a_step_of_shapes_runs_on_arrays_and_not_on_shapes():
    mesh = mesh_of(8)
    state, batch = arrays(mesh)
    train, shapes = gmc_jax.distribute(step, shapes_of(state), batch, mesh=mesh)
    with pytest.raises(TypeError, match="ShapeDtypeStruct"):
        train(shapes, batch)
    _, placed = gmc_jax.distribute(step, state, batch, mesh=mesh)
    places = jax.tree.map(lambda leaf: leaf.sharding, placed)
    state, _ = train(placed, batch)
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == places
    assert state[0]["bias"][0] < 1


def test_arrays_among_shapes_are_placed():
    mesh = mesh_of(2)
    (params, *_), batch = arrays(mesh)
    shapes = jax.eval_shape(TX.init, params), jax.random.key(0)
    _, laid_out = gmc_jax.distribute(step, (params, *shapes), batch, mesh=mesh)
    for array in (*laid_out[0].values(), laid_out[2]):
        assert isinstance(array, jax.Array)
        assert not array.is_deleted()
    momentum = laid_out[1][0].momentum
    assert momentum["in"].sharding.spec == PartitionSpec(None, "model")


def test_a_shape_that_mirrors_leaves_of_several_splits_is_an_error():
    mesh = mesh_of(2)

    def shape(*spec):
        sharding = NamedSharding(mesh, PartitionSpec(*spec))
        return jax.ShapeDtypeStruct((4, 8), "float32", sharding=sharding)

    state = {
        "one": {"kernel": shape("model")},
        "two": {"kernel": shape(None, "model")},
        "sum": {"kernel": jax.ShapeDtypeStruct((4, 8), "float32")},
        "other": {"weight": jax.ShapeDtypeStruct((4, 8), "float32")},
    }

    def keep(state, batch):
        return state, batch

    batch = np.ones((2, 1), np.float32)
    with pytest.raises(ValueError, match=r"`\['sum'\]\['kernel'\]`.*\['two'\]"):
        gmc_jax.distribute(keep, state, batch, mesh=mesh)
    # Of a shape that mirrors none, each device of a worker holds the whole.
    del state["sum"]
    _, laid_out = gmc_jax.distribute(keep, state, batch, mesh=mesh)
    assert laid_out["other"]["weight"].sharding.is_fully_replicated


def test_a_simulation_of_shapes_is_lowered():
    state, batch = arrays(mesh_of(8))
    train, laid_out = gmc_jax.simulate(step, state, batch, 8)
    of_shapes, shapes = gmc_jax.simulate(step, shapes_of(state), shapes_of(batch), 8)
    assert jax.eval_shape(lambda tree: tree, laid_out) == shapes
    text = of_shapes.lower(shapes, shapes_of(batch)).as_text()
    assert text == train.lower(laid_out, batch).as_text()
    with pytest.raises(TypeError, match="ShapeDtypeStruct"):
        of_shapes(shapes, batch)
