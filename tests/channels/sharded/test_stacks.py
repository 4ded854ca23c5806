"""Tests of vectors that are alike."""

import chex
import jax.numpy as jnp
import numpy as np

from gmc_jax.channels.sharded.shards import unsplit
from gmc_jax.channels.sharded.stacks import stacked_vectors


def stacked(tree, per_leaf=True):
    return stacked_vectors(unsplit(tree), tree, per_leaf, jnp.int32(3))


def test_leaves_of_one_shape_and_dtype_are_rows_of_a_stack():
    shapes = [(2, 3), (3, 2), (0,), (2, 3), (6,), (2, 3)]
    dtypes = [np.float32] * 5 + [np.float16]
    tree = [np.full(*each) for each in zip(shapes, range(6), dtypes, strict=True)]
    vectors, restore = stacked(tree)
    assert {i: vector.shape for i, vector in vectors.items()} == {
        **{0: (2, 6)},
        **dict.fromkeys([1, 4, 5], (6,)),
    }
    np.testing.assert_array_equal(vectors[0][:, 0], [0, 3])
    chex.assert_trees_all_equal(restore(vectors), tree)


def test_a_tree_as_one_vector_is_not_stacked():
    tree = [np.ones((2, 3), np.float32)] * 2
    vectors, restore = stacked(tree, per_leaf=False)
    assert vectors[0].shape == (12,)
    chex.assert_trees_all_equal(restore(vectors), tree)
