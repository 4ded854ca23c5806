"""Tests that a worker keeps the same messages, however many devices it has."""

import chex
import jax
import pytest

from gmc_jax import all_gather, all_reduce, random_block, top_k
from tests.support.meshes import mesh_named, on_mesh, on_one_device, trees_of

CHANNELS = {
    "largest": all_gather(top_k(0.2), per_leaf=True, delay=1),
    "drawn": all_reduce(random_block(0.3), per_leaf=True, delay=1),
    "largest of the whole vector": all_gather(top_k(0.2), delay=1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANNELS)
def test_what_devices_encode_together_one_device_decodes(name):
    """The state after one call on a mesh goes on where each worker has one device."""
    channel, mesh = CHANNELS[name], mesh_named("2 x 2 x 2")
    trees = trees_of(2, "float32")
    (_, _, split), _ = on_mesh(channel, trees, mesh, calls=1)
    _, _, whole = on_one_device(channel, trees, calls=1)
    chex.assert_trees_all_equal_shapes_and_dtypes(split, whole)
    chex.assert_trees_all_equal(split.in_flight, whole.in_flight)

    after = jax.jit(jax.vmap(channel.average, axis_name="workers"))
    mean, _, _ = after(trees, split)
    expected, _, _ = after(trees, whole)
    chex.assert_trees_all_close(mean, expected, rtol=1e-6)
    assert any(leaf.any() for leaf in jax.tree.leaves(mean))
