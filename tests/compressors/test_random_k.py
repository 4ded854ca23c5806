"""Tests of the coordinates that all workers draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax import random_k


def supports(ratio: float, d: int, draws: int) -> np.ndarray:
    """Which coordinates are kept, [draws, d], under different keys."""
    keys = jax.random.split(jax.random.key(0), draws)
    encode = random_k(ratio).encode
    _, lost = jax.jit(jax.vmap(encode, in_axes=(0, None)))(keys, jnp.ones(d))
    return np.asarray(lost) == 0


@pytest.mark.parametrize(("ratio", "d"), [(0.15, 20), (0.01, 5), (1.0, 7), (0.5, 1)])
def test_the_coordinates_are_distinct(ratio, d):
    s = max(1, int(np.ceil(ratio * d)))
    assert (supports(ratio, d, draws=200).sum(axis=1) == s).all()


@pytest.mark.parametrize(("ratio", "d"), [(0.15, 20), (0.6, 5)])
def test_every_coordinate_is_kept_with_the_same_probability(ratio, d):
    draws = 4000
    counts = supports(ratio, d, draws).sum(axis=0)
    deviation = np.sqrt(draws * ratio * (1 - ratio))
    assert np.all(np.abs(counts - draws * ratio) < 4.5 * deviation)


def test_every_pair_of_coordinates_is_kept_with_the_same_probability():
    ratio, d, draws = 0.3, 10, 4000
    kept = supports(ratio, d, draws).astype(float)
    together = (kept.T @ kept)[~np.eye(d, dtype=bool)] / draws
    expected = (3 / 10) * (2 / 9)
    deviation = np.sqrt(expected * (1 - expected) / draws)
    assert np.all(np.abs(together - expected) < 5 * deviation)


def test_the_mean_energy_kept_is_the_ratio():
    x = np.random.default_rng(0).normal(size=20)
    energy = supports(0.15, 20, draws=4000) @ x**2
    error = energy.std() / np.sqrt(4000)
    assert abs(energy.mean() - 0.15 * np.sum(x**2)) < 4 * error
