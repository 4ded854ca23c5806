"""How a worker's arrays lie on its devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

import gmc_jax
from gmc_jax.channels.sharded import context
from gmc_jax.channels.sharded.context import ShardingContext, current
from gmc_jax.utils.trees import zeros_to_accumulate

COLUMNS, ROWS, WHOLE = ((), ("model",)), (("model",), ()), ((), ())


def mesh_of(*names: str) -> Mesh:
    shape = {1: (8,), 2: (2, 4), 3: (2, 2, 2)}[len(names)]
    return Mesh(np.array(jax.devices()).reshape(shape), names)


MESH = mesh_of("workers", "model")


def put(spec: PartitionSpec, mesh: Mesh = MESH, shape=(4, 8)):
    return jax.device_put(np.ones(shape, np.float32), NamedSharding(mesh, spec))


def read(state, mesh: Mesh = MESH) -> list:
    return [spec for _, _, spec in context.read(state, mesh, "workers").leaves]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (PartitionSpec(), WHOLE),
        (PartitionSpec("model"), ROWS),
        (PartitionSpec("model", None), ROWS),
        (PartitionSpec(None, "model"), COLUMNS),
        (PartitionSpec(None, ("model",)), COLUMNS),
    ],
)
def test_a_leaf_lies_as_it_was_placed(spec, expected):
    assert read([put(spec)]) == [expected]


def test_a_dimension_may_be_split_over_several_axes():
    mesh = mesh_of("workers", "fsdp", "model")
    state = [put(PartitionSpec(("model", "fsdp")), mesh)]
    assert read(state, mesh) == [(("model", "fsdp"), ())]
    assert context.read(state, mesh, "workers").names == ("fsdp", "model")


def test_what_is_on_one_device_or_the_host_is_whole():
    state = [
        np.ones((4, 8)),
        jnp.ones((4, 8)),
        jax.device_put(jnp.ones((4, 8)), SingleDeviceSharding(jax.devices()[5])),
        2.0,
    ]
    assert read(state) == [WHOLE, WHOLE, WHOLE, ()]


def step(state, batch):
    return state, batch.sum()


def test_a_state_that_is_split_over_the_workers_is_an_error():
    message = r"`state\['w'\]` must not be split over the axis 'workers': .* one worker"
    for mesh in (MESH, mesh_of("workers")):
        state = {"w": put(PartitionSpec(None, "workers"), mesh)}
        batch = np.zeros(mesh.shape["workers"])
        with pytest.raises(ValueError, match=message):
            gmc_jax.distribute(step, state, batch, mesh=mesh)


def test_a_state_that_is_split_over_another_mesh_is_an_error():
    state = {"w": put(PartitionSpec("model"), mesh_of("data", "model"))}
    with pytest.raises(ValueError, match=r"`state\['w'\]` must .* `jax.device_put\("):
        gmc_jax.distribute(step, state, np.zeros(2), mesh=MESH)


def test_a_dimension_that_cannot_be_divided_is_refused_by_jax():
    with pytest.raises(ValueError, match="evenly divide"):
        put(PartitionSpec("model"), shape=(6, 8))


def test_each_device_gets_its_part_of_what_is_split():
    """Of what is kept once and of what every worker has its own, keys included.

    And keeps it so, even of what the step sets to a constant.
    """
    key = jax.device_put(
        jax.random.split(jax.random.key(0), 4),
        NamedSharding(MESH, PartitionSpec("model")),
    )
    state = {"kept": put(PartitionSpec(None, "model")), "own": put(PartitionSpec())}
    state |= {"both": put(PartitionSpec("model")), "key": key}
    state |= {"constant": put(PartitionSpec("model"))}

    def step(state, batch):
        own = {name: state[name] + batch for name in ("own", "both")}
        constant = jnp.zeros_like(state["constant"])
        return state | own | {"constant": constant}, state["key"].shape[0]

    train, kept = gmc_jax.distribute(step, state, np.ones(2, np.float32), mesh=MESH)
    sizes = {"kept": (4, 2), "own": (1, 4, 8), "both": (1, 1, 8), "key": (1,)}
    sizes |= {"constant": (1, 8)}
    for _ in range(3):
        parts = jax.tree.map(lambda x: x.addressable_shards[3].data.shape, kept)
        assert parts == sizes
        kept, _ = train(kept, np.ones(2, np.float32))
    np.testing.assert_array_equal(kept["both"], np.full((2, 4, 8), 4))
    np.testing.assert_array_equal(
        jax.random.key_data(kept["key"]), jax.random.key_data(key)
    )


# What channels are told.


def told(*leaves: tuple) -> ShardingContext:
    found = [(tuple(path.split()), (4, 8), spec) for path, spec in leaves]
    return ShardingContext((("model", 4),), tuple(found))


def test_a_leaf_lies_as_the_one_in_the_state_whose_path_ends_alike():
    state = told(("[0] ['a'] ['w']", COLUMNS), ("[0] ['b'] ['w']", ROWS))
    tree = {"a": {"w": jnp.ones((4, 8))}, "b": {"w": jnp.ones((4, 8))}}
    assert state.specs(tree) == [COLUMNS, ROWS]
    assert state.specs({"gradients": tree}) == [COLUMNS, ROWS]


def test_where_parameters_are_whole_and_momenta_split_means_are_split():
    state = told(("[0] ['w']", WHOLE), ("[1] .momentum ['w']", COLUMNS))
    assert state.specs({"w": jnp.ones((4, 8))}) == [COLUMNS]


def test_what_the_state_does_not_hold_is_taken_to_be_whole():
    assert told(("['w']", COLUMNS)).specs({"w": jnp.ones((8, 4))}) == [WHOLE]


def test_a_state_that_is_split_in_two_ways_is_an_error():
    state = told(("[0] ['w']", COLUMNS), ("[1] ['w']", ROWS))
    message = (
        r"several ways for the leaf `\['w'\]` of shape \(4, 8\): "
        r"`state\[0\]\['w'\]` by .* and `state\[1\]\['w'\]` by .*`tx.init`"
    )
    with pytest.raises(ValueError, match=message):
        state.specs({"w": jnp.ones((4, 8))})


def test_what_was_traced_for_one_way_is_not_used_for_another():
    """A function that the step compiles by itself is traced anew in each context."""
    seen = []

    @jax.jit
    def spy(x):
        seen.append(current.value)
        return x

    for here in (told(("['w']", COLUMNS)), told(("['w']", ROWS))):
        for _ in range(2):
            with current(here):
                spy(jnp.ones(3))
    spy(jnp.ones(3))
    assert seen == [told(("['w']", COLUMNS)), told(("['w']", ROWS)), None]
    assert current.value is None


def test_zeros_lie_as_what_they_are_for():
    zeros = zeros_to_accumulate(put(PartitionSpec(None, "model")).astype(jnp.bfloat16))
    assert zeros.dtype == jnp.float32
    assert zeros.sharding == NamedSharding(MESH, PartitionSpec(None, "model"))
