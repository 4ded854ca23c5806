"""Tests of the dense mean."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax import exact
from tests.support.harness import average


def test_it_is_the_mean():
    trees = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32)
    mean, lost, _ = average(exact(), trees)
    np.testing.assert_allclose(mean[0], trees.mean(axis=0), rtol=1e-6, atol=1e-6)
    assert not np.any(lost)


def test_sixteen_bits_are_summed_in_float32():
    """In bfloat16, 256 + 1 is 256."""
    trees = jnp.array([256.0, 1.0, 1.0, 1.0], jnp.bfloat16)
    mean, _, _ = average(exact(), trees)
    assert mean.dtype == jnp.float32
    np.testing.assert_array_equal(mean, np.full(4, 259 / 4))


def test_what_it_sends_counts_in_the_dtype_that_is_summed():
    tree = {"a": jnp.zeros((2, 3), jnp.bfloat16), "b": jnp.zeros(4), "c": jnp.zeros(0)}
    assert exact().bits(tree) == 32 * (6 + 4)
    assert exact().entries(tree) == 10


@pytest.mark.parametrize("workers", [3, 7, 8])
def test_finite_numbers_have_a_finite_mean(workers):
    """Numbers next to the largest, whose sum, taken before the division, is infinite.

    Of seven the rounding alone leads beyond it.
    """
    most = float(np.finfo(np.float32).max)
    draw = np.random.default_rng(0)
    trees = (most * draw.uniform(0.9, 1, size=(workers, 40))).astype(np.float32)
    trees[:, 0] = most
    trees[:, 1] *= draw.choice([-1, 1], size=workers)
    mean, _, _ = average(exact(), trees)
    expected = trees.mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(mean[0], expected, rtol=1e-6, atol=1e-6 * most)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_stays_so(value):
    trees = np.ones((3, 2), np.float32)
    trees[1, 0] = value
    np.testing.assert_array_equal(average(exact(), trees)[0][0], [value, 1])


@pytest.mark.parametrize("workers", [3, 7, 8, 21])
def test_simulated_workers_are_added_in_order(workers):
    """Shares change no bit of the mean: they are powers of two."""
    draw = np.random.default_rng(0)
    exponents = draw.integers(-110, 110, size=(workers, 500))
    trees = (draw.normal(size=exponents.shape) * 2.0**exponents).astype(np.float32)
    total = trees[0]
    for tree in trees[1:]:
        total = total + tree
    # XLA multiplies by the reciprocal of a constant.
    expected = jax.jit(lambda total: total / workers)(total)
    for mean in average(exact(), trees)[0]:
        np.testing.assert_array_equal(mean, expected)
