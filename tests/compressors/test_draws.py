"""Tests of one random word for each entry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax.compressors._draws import seeds_of, uniform, words

COUNT = 2**14


def drawn(seed: int, start: int = 0, count: int = COUNT) -> np.ndarray:
    return np.asarray(words(seeds_of(jax.random.key(seed)), start, count))


def bits_of(word: np.ndarray) -> np.ndarray:
    """The bits of words, [words, 32]."""
    return word[:, None] >> np.arange(32, dtype=np.uint32) & 1


def assert_fair(bits: np.ndarray) -> None:
    """The mean of each column of coins is a half, within 4.5 standard errors."""
    error = 0.5 / np.sqrt(len(bits))
    assert np.all(np.abs(bits.mean(axis=0) - 0.5) < 4.5 * error)


@pytest.mark.parametrize("seed", range(3))
def test_every_bit_is_a_coin(seed):
    assert_fair(bits_of(drawn(seed)))


@pytest.mark.parametrize("distance", [1, 2, 32, 512])
def test_entries_of_a_vector_are_independent(distance):
    word = drawn(0)
    assert_fair(bits_of(word[distance:] ^ word[:-distance]))


def test_keys_are_independent():
    assert_fair(bits_of(drawn(0) ^ drawn(1)))
    of_keys = jax.vmap(lambda key: words(seeds_of(key), 5, 2))(
        jax.random.split(jax.random.key(0), COUNT)
    )
    one, other = np.asarray(of_keys).T
    assert_fair(bits_of(one))
    assert_fair(bits_of(one ^ other))


def test_seeds_are_not_starts_of_one_sequence():
    """Where a first seed is the other's, some entries on."""
    seconds = jax.random.bits(jax.random.key(0), (2,), jnp.uint32)
    firsts = jnp.array([7, 7 + 0x9E3779B9], jnp.uint32)
    one, other = (
        words(pair, 0, COUNT) for pair in jnp.stack([firsts, seconds], axis=1)
    )
    assert_fair(bits_of(np.asarray(one[1:] ^ other[:-1])))


def test_a_part_has_the_words_of_the_whole():
    np.testing.assert_array_equal(drawn(0, 1000, 24), drawn(0)[1000:1024])


@pytest.mark.parametrize(("dtype", "least"), [("float32", 2**-24), ("float64", 2**-32)])
def test_uniform_numbers_are_below_one(dtype, least):
    with jax.enable_x64(dtype == "float64"):
        ends = uniform(jnp.array([0, 2**32 - 1, 2**31], jnp.uint32), jnp.dtype(dtype))
        assert ends.dtype == dtype
        np.testing.assert_array_equal(ends, np.array([0, 1 - least, 0.5]))
