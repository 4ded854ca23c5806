"""Tests of ascending indices in few bits."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax.compressors._elias_fano import decode_places, encode_places

MOST = 2**31 - 1


@functools.cache
def coder(s: int, d: int):
    """Encodes s indices and decodes them; compiled once."""

    def code(indices):
        words = encode_places(indices, d)
        return words, decode_places(words, s, d)

    return jax.jit(code)


def draw(s: int, d: int, unused: int = 0) -> np.ndarray:
    """Ascending indices below d, the first and the last among them if they fit."""
    few = np.random.default_rng(s).integers(0, d, 4 * s) if d > 10**6 else np.arange(d)
    few = np.random.default_rng(d).permutation(np.unique(few))
    ends = np.array([0, d - 1])[: min(s - unused, 2)]
    others = few[~np.isin(few, ends)][: s - unused - ends.size]
    used = np.sort(np.concatenate([np.unique(ends), others]))[: s - unused]
    return np.pad(used, (0, s - used.size), constant_values=d).astype(np.int32)


@pytest.mark.parametrize(
    ("s", "d", "unused"),
    [
        (1, 1, 0),
        (1, 1, 1),
        (1, 1000, 0),
        (7, 7, 0),
        (33, 33, 2),
        (32, 64, 0),
        (50, 97, 50),
        (10, 1000, 3),
        (40, 2**12, 0),
        (1, MOST, 0),
        (1000, MOST, 1),
    ],
)
def test_indices_are_decoded_as_they_were(s, d, unused):
    indices = draw(s, d, unused)
    words, decoded = coder(s, d)(indices)
    np.testing.assert_array_equal(decoded, indices)
    assert decoded.dtype == np.int32
    low = math.floor(math.log2((d + 1) / s))
    parts = [width for width in (16, 8, 4, 2, 1) if low & width]
    expected = sum(-(-s * width // 32) for width in parts)
    expected += -(-(s + d // 2**low) // 32)
    assert words.shape == (expected,)
    assert words.dtype == np.uint32


def test_where_the_bits_lie():
    """Of 1, 18 and 23 the low 3 bits are 1, 2 and 7; the rest is 0, 2 and 2."""
    words, _ = coder(3, 23)(np.array([1, 18, 23], np.int32))
    two_bits, third_bit, ones = (int(word) for word in words)
    assert two_bits == 1 | 2 << 2 | 3 << 4
    assert third_bit == 0 | 0 << 1 | 1 << 2
    assert ones == 1 << 0 | 1 << (2 + 1) | 1 << (2 + 2)


@pytest.mark.parametrize(("ratio", "bits"), [(0.01, 8.6), (0.001, 12.2)])
def test_an_index_takes_few_bits(ratio, bits):
    d = 11_000_000
    s = math.ceil(ratio * d)
    indices = jax.ShapeDtypeStruct((s,), jnp.int32)
    words = jax.eval_shape(functools.partial(encode_places, d=d), indices)
    assert 32 * words.size / s < bits


def test_many_messages_are_decoded_together():
    s, d = 10, 1000
    several = np.stack([draw(s, d, unused) for unused in range(3)])
    _, decoded = jax.vmap(coder(s, d))(several)
    np.testing.assert_array_equal(decoded, several)


def test_every_entry_of_the_longest_vector_has_a_place():
    indices = jax.ShapeDtypeStruct((MOST,), jnp.int32)
    words = jax.eval_shape(lambda indices: encode_places(indices, MOST), indices)
    assert words.shape == (2**27,)
    decoded = jax.eval_shape(lambda words: decode_places(words, MOST, MOST), words)
    assert decoded.shape == (MOST,)
