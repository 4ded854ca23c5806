"""Tests of arrays in files."""

import os
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from gmc_jax.checkpoints.array_store import ArrayStore, place_like

MESH = Mesh(np.array(jax.devices()).reshape(4, 2), ("workers", "model"))
WHERE = {
    "nowhere": None,
    "one device": SingleDeviceSharding(jax.devices()[3]),
    "everywhere": NamedSharding(MESH, PartitionSpec()),
    "workers": NamedSharding(MESH, PartitionSpec("workers")),
    "spread": NamedSharding(MESH, PartitionSpec(("model", "workers"))),
}
every_place = pytest.mark.parametrize("where", WHERE.values(), ids=WHERE.keys())


@pytest.fixture
def files():
    opened = ArrayStore()
    yield opened
    opened.close()


def arrays(where) -> list[jax.Array]:
    leaves = [
        jnp.arange(8.0),
        jax.random.split(jax.random.key(0), 8),
        jnp.zeros((8, 0)),
    ]
    return leaves if where is None else jax.device_put(leaves, where)


@every_place
def test_arrays_are_placed_like_others(tmp_path, files, where):
    files.write(tmp_path / "a", arrays(None))
    likes = arrays(where)
    for leaf, like in zip(
        files.read(tmp_path / "a", range(3), likes), likes, strict=True
    ):
        assert (leaf.sharding, leaf.committed) == (like.sharding, like.committed)
        assert leaf.dtype == like.dtype
    read, key, empty = files.read(tmp_path / "a", range(3), likes)
    np.testing.assert_array_equal(read, np.arange(8.0))
    drawn = jax.vmap(jax.random.bits)(key)
    np.testing.assert_array_equal(drawn, jax.vmap(jax.random.bits)(arrays(None)[1]))
    assert empty.shape == (8, 0)


def test_shapes_alone_are_read_on_the_host(tmp_path, files):
    files.write(tmp_path / "a", arrays(None))
    shapes = jax.eval_shape(lambda: arrays(None))
    numbers, keys, empty = files.read(tmp_path / "a", range(3), shapes)
    assert all(type(leaf) is np.ndarray for leaf in (numbers, keys, empty))
    np.testing.assert_array_equal(keys, jax.random.key_data(arrays(None)[1]))


@every_place
def test_arrays_of_the_host_are_placed(where):
    for like in arrays(where):
        numbers = like
        if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
            numbers = jax.random.key_data(like)
        ours = place_like(np.asarray(numbers), like)
        assert (ours.sharding, ours.committed) == (like.sharding, like.committed)
        assert ours.dtype == like.dtype


def test_an_existing_folder_is_not_overwritten(tmp_path, files):
    files.write(tmp_path / "a", [jnp.ones(2)])
    with pytest.raises(ValueError, match="exists"):
        files.write(tmp_path / "a", [jnp.zeros(2)])
    (kept,) = files.read(tmp_path / "a", [0], [jnp.zeros(2)])
    assert kept.tolist() == [1, 1]


def test_an_interrupt_is_raised_after_writing(tmp_path, files, monkeypatch):
    """Orbax's threads once wrote on into a folder that was being removed."""
    save, written = files._checkpointer.save, []

    def interrupted(*given, **named):
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        save(*given, **named)
        written.extend((tmp_path / "a").iterdir())

    monkeypatch.setattr(files._checkpointer, "save", interrupted)
    # In a shell's background, processes start with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            files.write(tmp_path / "a", [jnp.ones(2)])
    finally:
        signal.signal(signal.SIGINT, before)
    assert set(written) == set((tmp_path / "a").iterdir()) != set()


def test_missing_arrays_are_found(tmp_path, files):
    leaves = [jnp.ones(2), jnp.zeros((0, 2)), jnp.zeros(3)]
    files.write(tmp_path / "a", leaves)
    files.check(tmp_path / "a", leaves)
    with pytest.raises(OSError, match=r"/a` was written .*2 of 4 arrays are not in it"):
        files.check(tmp_path / "a", [*leaves, jnp.ones(1), jnp.ones(1)])
    files.write(tmp_path / "b", leaves[1:2])
    files.check(tmp_path / "b", leaves[1:2])


def test_some_of_many_are_read(tmp_path, files):
    leaves = [jnp.full(2, number) for number in range(4)]
    files.write(tmp_path / "a", leaves)
    third, first = files.read(tmp_path / "a", [2, 0], leaves[:2])
    assert (third[0], first[0]) == (2, 0)
