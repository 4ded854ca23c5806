"""Tests of the dense mean."""

import jax.numpy as jnp
import numpy as np

from gmc_jax import exact
from tests.problems import average


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
