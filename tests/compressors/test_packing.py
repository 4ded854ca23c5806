"""Tests of codes in words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax.compressors._packing import pack, unpack


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8, 12, 31, 32])
@pytest.mark.parametrize("d", [1, 33, 100])
def test_codes_are_unpacked_as_they_were(bits, d):
    codes = np.random.default_rng(bits).integers(0, 2**bits, d, dtype=np.uint32)
    words = jax.jit(pack, static_argnums=1)(codes, bits)
    found = jax.jit(unpack, static_argnums=(1, 2))(words, d, bits)
    np.testing.assert_array_equal(found, codes)
    parts = [width for width in (16, 8, 4, 2, 1) if bits & width]
    expected = d if bits == 32 else sum(-(-d * width // 32) for width in parts)
    assert words.shape == (expected,)
    assert words.dtype == np.uint32


def test_where_a_code_lies():
    """A part of 4 bits of 9 codes takes two words: code 2 * i + j is in word j."""
    codes = jnp.arange(9, dtype=jnp.uint32)
    words = np.asarray(pack(codes, 4))
    assert [int(words[n % 2] >> (4 * (n // 2)) & 15) for n in range(9)] == [*range(9)]


def test_booleans_are_codes_of_one_bit():
    plus = jnp.arange(40) % 3 == 0
    np.testing.assert_array_equal(pack(plus), pack(plus.astype(jnp.uint32), 1))
    np.testing.assert_array_equal(unpack(pack(plus), 40), plus)
