"""Reading arrays whole, and finding replicas that are not the same."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gmc_jax
from gmc_jax import all_gather, assert_replicated, gmc, query, top_k
from tests.support import problems

WORKERS = 8


def mesh():
    return Mesh(np.array(jax.devices()).reshape(4, 2), ("workers", "model"))


def placed(spec: PartitionSpec, replicas: list[np.ndarray], shape: tuple[int, ...]):
    """An array of what each device is said to hold."""
    held = [
        jax.device_put(replica, device)
        for replica, device in zip(replicas, mesh().devices.flat, strict=True)
    ]
    sharding = NamedSharding(mesh(), spec)
    return jax.make_array_from_single_device_arrays(shape, sharding, held)


def replicas_of(value, dtype="float32") -> list[np.ndarray]:
    return [np.array(value, dtype) for _ in range(WORKERS)]


SAME = {
    "replicated": placed(PartitionSpec(), replicas_of([1.0, 2.0]), (2,)),
    "scalar": placed(PartitionSpec(), replicas_of(3, "int32"), ()),
    "NaN": placed(PartitionSpec(), replicas_of([np.nan, -0.0]), (2,)),
    "bfloat16": placed(PartitionSpec(), replicas_of([1.0], "bfloat16"), (1,)),
    "no size": placed(PartitionSpec(), replicas_of(np.zeros((0, 3))), (0, 3)),
    "each worker's own": placed(
        PartitionSpec("workers"),
        [np.array([k // 2], "float32") for k in range(WORKERS)],
        (4,),
    ),
    "spread over all": placed(
        PartitionSpec(("workers", "model")),
        [np.array([k], "float32") for k in range(WORKERS)],
        (8,),
    ),
    "on one device": jnp.arange(3),
    "NumPy": np.arange(3),
    "number": 4,
    "None": None,
    "key": jax.random.key(0),
}


@pytest.mark.parametrize("kind", SAME)
def test_what_is_the_same_passes(kind):
    assert_replicated(SAME[kind])


def test_equal_trees_pass():
    assert_replicated(SAME)
    assert_replicated(())


@pytest.mark.parametrize("device", [1, 7])
@pytest.mark.parametrize(
    ("value", "other"),
    [
        (np.array([1, 2], "f4"), np.array([1, np.nextafter(np.float32(2), 3)], "f4")),
        (np.array([0], "f4"), np.array([-0.0], "f4")),
        (np.array(3, "int32"), np.array(4, "int32")),
        (np.array([True]), np.array([False])),
        (np.ones(2, jnp.bfloat16), np.full(2, 1.0078125, jnp.bfloat16)),
    ],
)
def test_one_different_bit_on_one_device_is_an_error(value, other, device):
    replicas = [value] * WORKERS
    replicas[device] = other
    doctored = placed(PartitionSpec(), replicas, value.shape)
    # JAX itself believes what it was told, and reads the first device.
    assert doctored.is_fully_replicated
    np.testing.assert_array_equal(doctored, value)

    message = rf"`\['doctored'\]\[0\]` has other bits on .*{device}.* than on .*0"
    with pytest.raises(AssertionError, match=message):
        assert_replicated({"fine": jnp.ones(2), "doctored": [doctored]})


def test_every_leaf_with_an_error_is_named():
    replicas = replicas_of(1.0)
    replicas[3] = np.array(2, "float32")
    doctored = placed(PartitionSpec(), replicas, ())
    with pytest.raises(AssertionError) as error:
        assert_replicated({"a": doctored, "b": jnp.ones(2), "c": (doctored,)})
    assert "`['a']`" in str(error.value)
    assert "`['c'][0]`" in str(error.value)
    assert "'b'" not in str(error.value)
    with pytest.raises(AssertionError, match="`tree` has other bits"):
        assert_replicated(doctored)


def test_replicas_of_a_shard_are_compared():
    """Each worker's own, on a mesh whose second axis repeats it."""
    held = [np.array([k // 2], "float32") for k in range(WORKERS)]
    held[5] = np.array([9], "float32")
    doctored = placed(PartitionSpec("workers"), held, (4,))
    assert not doctored.is_fully_replicated
    with pytest.raises(AssertionError, match=r"`tree` has other bits on .*5"):
        assert_replicated(doctored)


def test_random_keys_are_compared():
    sharding = NamedSharding(mesh(), PartitionSpec())
    data = [np.asarray(jax.random.key_data(jax.random.key(0)))] * WORKERS
    same = jax.random.wrap_key_data(placed(PartitionSpec(), data, data[0].shape))
    assert same.sharding.is_equivalent_to(sharding, 0)
    assert_replicated({"key": same})

    keys = [jax.random.key(int(k == 6)) for k in range(WORKERS)]
    held = [
        jax.device_put(key, device)
        for key, device in zip(keys, mesh().devices.flat, strict=True)
    ]
    doctored = jax.make_array_from_single_device_arrays((), sharding, held)
    with pytest.raises(AssertionError, match=r"`\['key'\]` has other bits on .*6"):
        assert_replicated({"key": doctored})


@pytest.mark.slow
def test_replicas_hold_over_a_thousand_steps():
    """No drift, in parameters, shared momentum or counters, bit for bit."""
    tx = gmc(0.05, all_gather(top_k(0.1)))

    def step(state, batch):
        params, opt_state = state
        point = query(opt_state, params)
        grads = jax.tree.map(lambda w, b: jnp.sin(w - b), point, batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    params = problems.tree(np.linspace(-2, 2, 60, dtype=np.float32))
    draw = np.random.default_rng(0)
    batches = [
        jax.tree.map(
            lambda w: np.float32(draw.normal(size=(WORKERS, *w.shape))), params
        )
        for _ in range(10)
    ]
    train, state = gmc_jax.distribute(step, (params, tx.init(params)), batches[0])
    for t in range(1000):
        state, _ = train(state, batches[t % 10])
    assert_replicated(state)
    for leaf in jax.tree.leaves(state[0]):
        assert len(leaf.addressable_shards) == WORKERS
        assert np.isfinite(leaf).all()
    assert int(state[1][0].step) == 1000
