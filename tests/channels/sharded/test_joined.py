"""Tests of leaves that are one vector, each of which sends its own largest entries."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax import all_gather, join_channels, threshold, top_k
from gmc_jax.channels.sharded.joined import can_join, sends_largest
from tests.support.harness import average
from tests.support.meshes import mesh_named, on_mesh, trees_of


def tree_of(dtypes):
    """Leaves alike and others, one of them empty, of three workers; many are tied."""
    draw = np.random.default_rng(0)
    shapes = [(3, 4), (12,), (), (0,), (4, 3), (3, 4), (33,)]
    leaves = [np.round(draw.normal(size=(3, *shape)), 1) for shape in shapes]
    return [
        jnp.asarray(leaf, dtypes[place % len(dtypes)])
        for place, leaf in enumerate(leaves)
    ]


@pytest.mark.parametrize("dtypes", [["float32"], ["float32", "bfloat16"]])
def test_channels_that_take_turns_do_what_each_does_alone(dtypes):
    """Bit for bit, whether or not the leaves can be one vector."""
    tree = tree_of(dtypes)
    one = [leaf[0] for leaf in tree]
    assert can_join(one) == (len(dtypes) == 1)
    parts = [all_gather(top_k(ratio), per_leaf=True) for ratio in (0.5, 0.1)]
    joined = join_channels(parts, boundaries=[1])
    state = joined.init(one)
    for place, part in enumerate(parts):
        now = state._replace(step=jnp.array(place, jnp.int32))
        mean, lost, after = average(joined, tree, now)
        chex.assert_trees_all_equal(
            (mean, lost, after.inner[place]), average(part, tree)
        )


@pytest.mark.slow
def test_split_leaves_are_not_joined():
    """Each of them sends the largest entries of all its shards."""
    trees, mesh = trees_of(2, "float32"), mesh_named("2 x 2 x 2")
    part = all_gather(top_k(0.2), per_leaf=True)
    joined = join_channels([part, part], boundaries=[1])
    (mean, lost, _), _ = on_mesh(joined, trees, mesh, 1)
    (alone, lost_alone, _), _ = on_mesh(part, trees, mesh, 1)
    chex.assert_trees_all_equal((mean, lost), (alone, lost_alone))


def test_what_may_leave_slots_unused_is_not_joined():
    assert sends_largest(top_k(0.1))
    assert not sends_largest(threshold(0.5, 0.1))


def test_leaves_that_are_all_alike_or_long_are_stacked():
    assert not can_join([jnp.zeros(4), jnp.zeros(4)])
    assert not can_join([jnp.zeros(4), jnp.zeros(2**15)])
    assert can_join([jnp.zeros(4), jnp.zeros((2, 2))])
