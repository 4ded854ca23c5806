"""Tests of the largest entries of every row: what is kept, and how small it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax import all_gather, message_bits, top_k_of_rows
from tests.support.compressors import round_trip

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((2, 3, 17), "float32"),
        ((), "bfloat16"),
        *(
            pytest.param(shape, dtype, marks=pytest.mark.slow)
            for shape in [(5, 33), (40,), (3, 2), (4, 1)]
            for dtype in ("float32", "bfloat16", "float8_e4m3fn")
        ),
    ],
)
def test_each_row_keeps_its_largest(shape, dtype):
    draw = np.random.default_rng(0)
    x = draw.integers(-9, 10, size=shape).astype(jnp.dtype(dtype))  # With ties.
    _, lost, decoded = round_trip(top_k_of_rows(3))(KEY, jnp.asarray(x))
    rows = x.astype(np.float32).reshape(-1, shape[-1] if shape else 1)
    expected = np.zeros_like(rows)
    for row, out in zip(rows, expected, strict=True):
        kept = np.argsort(-np.abs(row), kind="stable")[:3]
        out[kept] = row[kept]
    np.testing.assert_array_equal(
        np.asarray(decoded).astype(np.float32), expected.reshape(shape)
    )
    np.testing.assert_array_equal(
        np.asarray(lost).astype(np.float32), (rows - expected).reshape(shape)
    )


def test_places_are_packed():
    """Of 4096 entries 12 bits, and of one row of a vector as many as it needs."""
    channel = all_gather(top_k_of_rows(32), per_leaf=True)
    assert message_bits(channel, jnp.zeros((10, 4096))) == 320 * (32 + 12)
    assert message_bits(channel, jnp.zeros(64)) == 32 * (32 + 6)


def test_the_count_is_a_whole_number():
    for count in (0, -1):
        with pytest.raises(ValueError, match="`count` must be a whole number"):
            top_k_of_rows(count)
