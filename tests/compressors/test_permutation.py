"""Tests of the random permutation that is computed in part."""

import functools

import jax
import numpy as np
import pytest

from gmc_jax.compressors._permutation import first_permuted


@functools.cache
def permuted(d: int, s: int, draws: int) -> np.ndarray:
    """Where the first s of d numbers come to lie, [draws, s], under different keys."""
    keys = jax.random.split(jax.random.key(0), draws)
    return np.asarray(jax.jit(jax.vmap(lambda key: first_permuted(key, d, s)))(keys))


@pytest.mark.parametrize("d", [1, 2, 7, 1024, 1025, 1031, 2**14 - 1, 2**14, 2**14 + 1])
def test_all_numbers_are_permuted(d):
    expected = np.broadcast_to(np.arange(d), (5, d))
    np.testing.assert_array_equal(np.sort(permuted(d, d, draws=5)), expected)


@pytest.mark.parametrize("d", [2**24 + 1, 2**31 - 2, 2**31 - 1])
def test_many_numbers_lie_everywhere(d):
    """32 bits hold all that is computed."""
    drawn = permuted(d, 10_000, draws=2)
    assert drawn.dtype == np.int32
    for of_one in drawn:
        assert len(np.unique(of_one)) == 10_000
        parts, _ = np.histogram(of_one, bins=10, range=(0, d))
        assert np.all(np.abs(parts - 1000) < 5 * np.sqrt(900))


def excess(counts: np.ndarray, expected: float) -> float:
    """By how many deviations chi-square is above or below its mean."""
    freedom = counts.size - 1
    chi_square = np.sum(np.square(counts - expected)) / expected
    return (chi_square - freedom) / np.sqrt(2 * freedom)


@pytest.mark.parametrize("d", [10, 1025, 1031])
def test_numbers_and_their_distances_are_equally_likely(d):
    draws = 20_000
    first, second = permuted(d, 2, draws).T
    assert abs(excess(np.bincount(first, minlength=d), draws / d)) < 5
    assert abs(excess(np.bincount(second, minlength=d), draws / d)) < 5
    distances = np.bincount((second - first) % d, minlength=d)
    assert distances[0] == 0
    assert abs(excess(distances[1:], draws / (d - 1))) < 5


@pytest.mark.parametrize("d", [1025, 1031])
def test_pairs_are_drawn_together_equally_often(d):
    draws, s = 4000, 100
    kept = np.zeros((draws, d), np.float32)
    np.put_along_axis(kept, permuted(d, s, draws), 1, axis=1)
    together = (kept.T @ kept)[np.triu_indices(d, 1)]
    expected = draws * s / d * (s - 1) / (d - 1)
    assert np.mean(together) == pytest.approx(expected)
    assert np.var(together) == pytest.approx(expected, rel=0.03)


def test_the_time_of_a_draw_does_not_grow_with_the_numbers():
    """Nothing in the program is longer than what is drawn."""
    draw = jax.jit(lambda key: first_permuted(key, 10**9, 100))
    text = draw.lower(jax.random.key(0)).as_text()
    assert "tensor<100x" in text
    assert "tensor<1000000000x" not in text
