"""Tests of floats of eight bits with a scale for each bucket."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax import all_gather, float8
from tests.support.quantisers import blocks_of, coded, vector

BUCKET = 16
DTYPES = {"float8_e4m3fn": 448.0, "float8_e5m2": 57344.0}
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


@every_dtype
def test_entries_are_cast_after_a_division_by_the_scale(dtype, float64):
    """As by the casts of NumPy's own dtype."""
    x = vector(37) * 2.0 ** np.random.default_rng(1).integers(-12, 3, 37)
    message, lost, decoded = coded(float8(dtype, BUCKET), x)
    codes, expected = [], []
    for v in blocks_of(x, BUCKET):
        scale = np.abs(v).max() / DTYPES[dtype]
        cast = (v / scale).astype(jnp.dtype(dtype))
        codes.append(cast.view(np.uint8))
        expected.append(scale * cast.astype(np.float64))
    np.testing.assert_array_equal(message.codes, np.concatenate(codes))
    np.testing.assert_allclose(decoded, np.concatenate(expected), rtol=1e-12)
    np.testing.assert_allclose(lost, x - decoded, rtol=0, atol=1e-12)


@every_dtype
@pytest.mark.parametrize("wide", ["float32", "float64"])
def test_every_number_and_every_tie_is_cast_as_by_the_dtype(dtype, wide):
    numbers = np.arange(256, dtype=np.uint8).view(jnp.dtype(dtype)).astype(np.float64)
    numbers = np.unique(numbers[np.isfinite(numbers)])
    ties = (numbers[1:] + numbers[:-1]) / 2
    x = np.concatenate([numbers, ties, ties * (1 + 1e-6), ties * (1 - 1e-6)])
    x = x.astype(wide)
    with jax.enable_x64(wide == "float64"):
        message, _, decoded = coded(float8(dtype, None), x)
    # The sign of a zero may be lost.
    expected = x.astype(jnp.dtype(dtype)).astype(wide)
    assert message.scales == 1
    np.testing.assert_array_equal(decoded, expected)
    got = message.codes.view(jnp.dtype(dtype)).astype(wide)
    np.testing.assert_array_equal(got, expected)


@every_dtype
def test_what_is_lost_is_bounded_as_documented(dtype, float64):
    x = vector(4096) * 2.0 ** np.random.default_rng(2).integers(-30, 1, 4096)
    message, lost, _ = coded(float8(dtype, None), x)
    relative, normal = {"float8_e4m3fn": (4, -6), "float8_e5m2": (3, -14)}[dtype]
    scale = message.scales[0]
    is_normal = np.abs(x) >= 2.0**normal * scale
    assert 0 < np.mean(is_normal) < 1
    bound = np.where(
        is_normal, 2.0**-relative * np.abs(x), 2.0 ** (normal - relative) * scale
    )
    assert np.all(np.abs(lost) <= bound * (1 + 1e-9))


def test_a_message_is_a_byte_an_entry_and_a_float_a_bucket():
    channel = all_gather(float8(bucket=BUCKET))
    assert channel.bits(jax.ShapeDtypeStruct((37,), "float32")) == 8 * 37 + 32 * 3


@pytest.mark.parametrize("dtype", ["float8", "float16", jnp.float8_e5m2, None])
def test_the_dtype_is_one_of_two(dtype):
    with pytest.raises(ValueError, match="`dtype` must be one of"):
        float8(dtype)
