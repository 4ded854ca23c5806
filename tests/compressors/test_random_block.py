"""Tests of the contiguous block that all workers draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax import random_block


def supports(ratio: float, d: int, draws: int) -> np.ndarray:
    """Which coordinates are kept, [draws, d], under different keys."""
    keys = jax.random.split(jax.random.key(0), draws)
    encode = random_block(ratio).encode
    _, lost = jax.jit(jax.vmap(encode, in_axes=(0, None)))(keys, jnp.ones(d))
    return np.asarray(lost) == 0


@pytest.mark.parametrize(("s", "d"), [(3, 10), (1, 7), (6, 7)])
def test_it_keeps_every_contiguous_block_and_no_other(s, d):
    """This includes blocks that pass the end and go on at the beginning."""
    blocks = {tuple(sorted((start + np.arange(s)) % d)) for start in range(d)}
    kept = {tuple(np.flatnonzero(row)) for row in supports(s / d, d, draws=300)}
    assert kept == blocks


@pytest.mark.parametrize(("ratio", "d"), [(1.0, 7), (0.5, 1)])
def test_a_block_of_all_coordinates_loses_nothing(ratio, d):
    assert supports(ratio, d, draws=50).all()


def test_every_start_has_the_same_probability():
    d, draws = 10, 4000
    kept = supports(0.3, d, draws)
    starts = np.argmax(kept & ~np.roll(kept, 1, axis=1), axis=1)
    deviation = np.sqrt(draws * 0.1 * 0.9)
    assert np.all(
        np.abs(np.bincount(starts, minlength=d) - draws / d) < 4.5 * deviation
    )


def test_the_mean_energy_over_all_starts_is_exactly_the_ratio():
    x = np.random.default_rng(0).normal(size=10)
    every_start = np.unique(supports(0.3, 10, draws=300), axis=0)
    np.testing.assert_allclose((every_start @ x**2).mean(), 0.3 * np.sum(x**2))


def test_the_message_is_the_block_in_its_order():
    x = jnp.arange(10.0)
    for seed in range(20):
        block, _ = random_block(0.4).encode(jax.random.key(seed), x)
        np.testing.assert_array_equal(np.diff(block) % 10, [1, 1, 1])
