"""The largest entries of shards are those of the whole vector."""

from itertools import chain

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from gmc_jax.channels.sharded.global_top_k import Candidates, global_top_k
from gmc_jax.compressors._selection import magnitude_bits

DEVICES, D = 4, 32


def selected(x: np.ndarray, num_kept: int, owners: int = DEVICES) -> list[list[int]]:
    """The global indices in each slot of the message, by device.

    With fewer owners than devices, the others hold copies of the first shards.
    """
    mesh = jax.make_mesh(
        (DEVICES,), ("model",), axis_types=(jax.sharding.AxisType.Auto,)
    )
    shards = np.resize(x.reshape(owners, -1), (DEVICES, x.size // owners))
    places = np.resize(
        np.arange(x.size, dtype=np.int32).reshape(owners, -1), shards.shape
    )

    def on_device(shard, places):
        bits = magnitude_bits(shard[0])
        owner = jnp.broadcast_to(jax.lax.axis_index("model") < owners, bits.shape)
        (found,) = global_top_k(
            [Candidates(num_kept, bits, places[0], owner)], ("model",)
        )
        slots = jnp.full(num_kept, -1).at[found.slots].set(places[0], mode="drop")
        return slots[None], found.used[None]

    spec = PartitionSpec("model")
    slots, used = jax.jit(
        jax.shard_map(
            on_device, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
        )
    )(shards, places)
    assert set(np.asarray(used)) == {min(num_kept, x.size)}
    return [[int(at) for at in own if at >= 0] for own in np.asarray(slots)]


@pytest.mark.parametrize("num_kept", [1, 5, D])
def test_it_selects_what_sorting_selects(num_kept):
    x = np.random.default_rng(0).standard_normal(D).astype(np.float32)
    expected = np.sort(np.argsort(-np.abs(x), kind="stable")[:num_kept])
    assert list(chain(*selected(x, num_kept))) == expected.tolist()


def test_ties_go_to_the_lowest_index_across_devices():
    x = np.ones(D, np.float32)
    x[20] = 2
    assert list(chain(*selected(x, 10))) == [*range(9), 20]


def test_an_entry_is_sent_by_its_owner_alone():
    x = np.arange(D, dtype=np.float32)
    first, second, *copies = selected(x, 20, owners=2)
    assert first + second == list(range(12, 32))
    assert copies == [[], []]
