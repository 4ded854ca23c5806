"""Tests of split leaves that are encoded block by block."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax import Blockwise, Compressor, all_gather, message_bits
from tests.support.meshes import mesh_named, on_mesh, on_one_device, trees_of


def rounded(draw: bool = False) -> Compressor:
    """Sends each entry in 16 bits, rounded to multiples of 4, perhaps at random."""

    def encode(key, x):
        up = jax.random.uniform(key, x.shape) if draw else 0.5
        message = jnp.asarray(4 * jnp.floor(x / 4 + up), jnp.float16)
        return message, x - message.astype(x.dtype)

    def decode(key, messages, like):
        del key
        return messages.astype(like.dtype).sum(axis=0)

    return Compressor(encode, decode, selects=Blockwise(1))


@pytest.mark.parametrize("mesh", ["2 x 4", pytest.param("2 x 2 x 2", id="copies")])
def test_every_device_encodes_its_shard_and_sends_it_once(mesh):
    channel, trees = all_gather(rounded(), per_leaf=True), trees_of(2, "float32")
    (mean, lost, _), text = on_mesh(channel, trees, mesh_named(mesh))
    expected_mean, expected_lost, _ = on_one_device(channel, trees)
    chex.assert_trees_all_equal(lost, expected_lost)
    chex.assert_trees_all_equal(mean, expected_mean)
    # What a device sends to the other worker: a quarter of everything, `whole` padded.
    device = re.compile(r"= u16\[2,(\d+)\]\S* all-gather\(.* dimensions=\{0\}")
    entries = sum(tree[0].size for tree in trees.values())
    assert sum(map(int, device.findall(text))) == (entries + 1) // 4
    whole = {name: tree[0] for name, tree in trees.items()}
    assert message_bits(channel, whole) == 16 * entries


def test_devices_draw_for_themselves_and_their_copies_alike():
    channel = all_gather(rounded(draw=True), per_leaf=True)
    trees = jax.tree.map(np.ones_like, trees_of(2, "float32"))
    (mean, lost, _), _ = on_mesh(channel, trees, mesh_named("2 x 2 x 2"))
    for name, tree in trees.items():
        sent = (tree - lost[name]).mean(axis=0)
        np.testing.assert_array_equal(mean[name][0], sent)
        np.testing.assert_array_equal(mean[name][0], mean[name][1])
    left, right = np.split(lost["columns"][0], 2, axis=1)
    assert not np.array_equal(left, right)


def test_blocks_of_the_whole_tree_are_refused_where_it_is_split():
    channel = all_gather(rounded())
    with pytest.raises(ValueError, match=r"leaf by leaf.*split.*per_leaf=True"):
        on_mesh(channel, trees_of(2, "float32"), mesh_named("2 x 4"))
