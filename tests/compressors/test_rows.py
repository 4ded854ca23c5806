"""Tests of the largest entries of each row."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax.compressors._rows import by_counting, largest_in_rows
from gmc_jax.compressors._selection import largest


@pytest.mark.parametrize(
    "dtype",
    [
        "float32",
        *(pytest.param(d, marks=pytest.mark.slow) for d in ("bfloat16", "float64")),
    ],
)
@pytest.mark.parametrize(
    ("shape", "k"),
    [((1, 1), 1), ((3, 7), 2), ((4, 33), 33), ((5, 1001), 9), ((2, 4096), 41)],
)
def test_both_ways_find_the_first_of_the_largest(shape, k, dtype):
    draw = np.random.default_rng(k)
    x = draw.integers(-20, 20, shape) * 2.0 ** draw.integers(-3, 3, shape)
    x[-1, -1], x[0, 0] = np.inf, np.nan
    order = np.where(np.isnan(x), 2e300, np.minimum(np.abs(x), 1e300))
    expected = np.sort(np.argsort(-order, axis=1, kind="stable")[:, :k], axis=1)
    with jax.enable_x64(dtype == "float64"):
        x = x.astype(jnp.dtype(dtype))
        found = jax.jit(functools.partial(by_counting, k=k))(x)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.int32
        by_row = jax.jit(jax.vmap(functools.partial(largest, s=k)))(x)
        np.testing.assert_array_equal(by_row, expected)


def test_batches_of_rows_are_as_each_alone():
    x = np.random.default_rng(0).normal(size=(3, 2, 300)).astype(np.float32)
    select = functools.partial(largest_in_rows, k=5)
    several = jax.jit(jax.vmap(select))(x)
    for rows, found in zip(x, several, strict=True):
        np.testing.assert_array_equal(found, jax.jit(select)(rows))
