"""Tests of trees as vectors."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmc_jax.utils.vectors import at_run_time, to_vectors, unstack

TREE = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": [np.float32(7), np.zeros((0, 2), np.float32)],
    "c": np.arange(8, 10, dtype=np.float32),
}


SHAPES = st.lists(st.sampled_from([(), (1,), (0,), (3,), (2, 3), (2, 0, 1), (1, 1, 4)]))


@given(shapes=SHAPES, per_leaf=st.booleans(), seed=st.integers(0, 99))
@settings(deadline=None, derandomize=True, max_examples=50)
def test_any_tree_is_restored_from_its_vectors(shapes, per_leaf, seed):
    draw = np.random.default_rng(seed)
    tree = [draw.normal(size=shape).astype(np.float32) for shape in shapes]
    vectors, restore = to_vectors(tree, per_leaf)
    assert all(vector.ndim == 1 and vector.size for vector in vectors.values())
    chex.assert_trees_all_equal(restore(vectors), tree)
    chex.assert_trees_all_equal_shapes_and_dtypes(restore(vectors), tree)


def test_a_tree_as_one_vector_holds_its_leaves_in_order():
    vectors, restore = to_vectors(TREE, per_leaf=False)
    assert list(vectors) == [0]
    np.testing.assert_array_equal(vectors[0], [0, 1, 2, 3, 4, 5, 7, 8, 9])
    chex.assert_trees_all_equal(restore(vectors), TREE)


def test_leaf_by_leaf_empty_leaves_have_no_vector_but_keep_their_place():
    vectors, restore = to_vectors(TREE, per_leaf=True)
    assert list(vectors) == [0, 1, 3]
    np.testing.assert_array_equal(vectors[3], [8, 9])
    chex.assert_trees_all_equal(restore(vectors), TREE)


@pytest.mark.parametrize("per_leaf", [False, True])
@pytest.mark.parametrize("tree", [{}, None, {"a": np.zeros((0, 3))}])
def test_a_tree_without_entries_has_no_vectors(tree, per_leaf):
    vectors, restore = to_vectors(tree, per_leaf)
    assert vectors == {}
    chex.assert_trees_all_equal(restore(vectors), tree)


def test_restoring_keeps_the_dtypes_of_the_vectors():
    _, restore = to_vectors({"a": jnp.ones(3, jnp.bfloat16)}, per_leaf=False)
    assert restore({0: jnp.ones(3)})["a"].dtype == jnp.float32


def test_floats_of_8_bits_share_a_vector_with_others():
    """JAX itself mixes them with none."""
    tree = jnp.ones(2, "float8_e4m3fn"), jnp.full(1, 2, "float8_e5m2")
    (vector,) = to_vectors(tree, per_leaf=False)[0].values()
    assert vector.dtype == jnp.float32
    assert vector.tolist() == [1, 1, 2]
    (alone,) = to_vectors(tree[:1], per_leaf=False)[0].values()
    assert alone.dtype == "float8_e4m3fn"


def joined_and_restored(tree, rows, step):
    vectors, restore = to_vectors(tree, False, step)
    return vectors[0], restore({0: 2 * vectors[0]}), unstack(rows, step)


@pytest.mark.parametrize("step_is_batched", [False, True])
def test_batches_are_those_of_each_alone(step_is_batched):
    """Of batches in a batch too; leaves that are the same for all are repeated."""
    draw = np.random.default_rng(0)
    tree = [draw.normal(size=(4, 3, *shape)).astype(np.float32) for shape in [(2,), ()]]
    tree.append(draw.normal(size=(4, 5)).astype(np.float32))
    rows = draw.normal(size=(4, 3, 2, 6)).astype(np.float32)
    steps = jnp.arange(3) if step_is_batched else jnp.array(7)
    inner = jax.vmap(
        joined_and_restored, ([0, 0, None], 0, 0 if step_is_batched else None)
    )
    found = jax.jit(jax.vmap(inner, (0, 0, None)))(tree, rows, steps)
    for place in np.ndindex(4, 3):
        one = [tree[0][place], tree[1][place], tree[2][place[0]]]
        whole, restored, read = jax.tree.map(lambda x, at=place: x[at], found)
        expected = np.concatenate([np.ravel(leaf) for leaf in one])
        np.testing.assert_array_equal(whole, expected)
        chex.assert_trees_all_equal(restored, [2 * leaf for leaf in one])
        np.testing.assert_array_equal(np.stack(read), rows[place])


@pytest.mark.parametrize("step", [0, 1, 63, 2**31 - 1, -1, -(2**31)])
def test_numbers_are_the_same_at_any_step(step):
    found = jax.jit(lambda step: at_run_time([0, 5, 2**31 - 1], step))(jnp.int32(step))
    assert [int(number) for number in found] == [0, 5, 2**31 - 1]


@pytest.mark.parametrize(("platform", "hides"), [("cpu", True), ("cuda", False)])
def test_numbers_are_hidden_from_the_compiler_of_cpus_alone(platform, hides):
    program = jax.jit(lambda step: at_run_time([0, 5], step)).trace(jnp.int32(3))
    text = program.lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.while" in text) == hides
