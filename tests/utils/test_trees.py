"""Tests of precision, of means, and of finding states in states."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax.utils import trees


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("bfloat16", "float32"),
        ("float16", "float32"),
        ("float32", "float32"),
        ("float64", "float64"),
        ("int8", "int8"),
    ],
)
def test_sixteen_bits_are_accumulated_in_float32(dtype, expected, float64):
    leaf = jnp.ones(2, dtype)
    assert trees.accumulator_dtype(leaf.dtype) == expected
    assert trees.upcast(leaf).dtype == expected
    if dtype != "int8":
        assert trees.zeros_to_accumulate(leaf).dtype == expected


def test_numbers_too_large_for_sixteen_bits_become_the_largest():
    leaf = jnp.array([1e6, -1e6, 2.0, jnp.nan])
    narrowed = trees.downcast(leaf, jnp.zeros(4, jnp.float16))
    np.testing.assert_array_equal(narrowed, [65504, -65504, 2, np.nan])
    np.testing.assert_array_equal(trees.downcast(leaf, leaf), leaf)


def test_the_size_of_a_tree_in_bits():
    tree = {"a": jnp.ones((2, 3), jnp.bfloat16), "b": jnp.ones(()), "c": jnp.ones((0,))}
    assert trees.size_in_bits(tree) == 6 * 16 + 32


def test_nodes_of_a_type_are_found_in_order_the_outermost_only():
    tree = [(1, 2), {"a": (3, (4, 5))}, None, [6]]
    assert trees.find(tree, tuple) == [(1, 2), (3, (4, 5))]
    assert trees.find(tree, str) == []


def test_downcasting_keeps_finite_numbers_finite():
    wide = jnp.array([1e30, -1e30, jnp.inf, -jnp.inf, jnp.nan, 1.5])
    narrowed = trees.downcast(wide, jnp.zeros(6, jnp.float16))
    expected = [65504, -65504, np.inf, -np.inf, np.nan, 1.5]
    np.testing.assert_array_equal(narrowed, np.array(expected, np.float16))


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 1000])
def test_shares_make_a_mean(count):
    share, rest = trees.shares(count)
    assert np.log2(share) == round(np.log2(share))
    assert 1 / (2 * count) < share <= 1 / count
    assert rest == count * share


def test_the_mean_of_finite_shares_is_finite():
    """Not what is infinite, or no number."""
    most = float(np.finfo(np.float32).max)
    _, rest = trees.shares(7)
    totals = jnp.array([most * rest * 1.0000001, -most, np.inf, -np.inf, np.nan, 7])
    means = trees.mean_of(totals.astype(jnp.float32), rest)
    expected = [most, -most, np.inf, -np.inf, np.nan, 8]
    np.testing.assert_array_equal(means, np.array(expected, "float32"))


def test_only_floating_leaves_are_scaled():
    key = jax.random.key(0)
    tree = jnp.ones(2, jnp.bfloat16), jnp.ones(2, jnp.uint32), key
    scaled = trees.scale_floats(tree, 0.25)
    assert scaled[0].tolist() == [0.25, 0.25]
    assert scaled[0].dtype == jnp.bfloat16
    assert scaled[1].tolist() == [1, 1]
    assert scaled[2] is key


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_finite_numbers_stay_finite_in_8_bits(dtype):
    most = float(jnp.finfo(dtype).max)
    x = jnp.array([1e9, -1e9, 1.0, jnp.inf, jnp.nan])
    narrowed = trees.downcast(x, jnp.zeros((), dtype)).astype(jnp.float32)
    np.testing.assert_array_equal(narrowed[:3], [most, -most, 1])
    assert not np.isfinite(narrowed[3:]).any()
