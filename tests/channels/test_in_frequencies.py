"""Tests of the cosine transform: its matrices, chunks and inverse."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax import (
    Channel,
    all_gather,
    exact,
    in_frequencies,
    message_bits,
    top_k_of_rows,
)
from tests.support import harness


def cosine(size: int) -> np.ndarray:
    """The orthonormal DCT-II, entry by entry."""
    matrix = np.zeros((size, size))
    for k in range(size):
        norm = math.sqrt((1 if k == 0 else 2) / size)
        for n in range(size):
            matrix[k, n] = norm * math.cos(math.pi * (n + 0.5) * k / size)
    return matrix


def seen(chunk: int, leaf: np.ndarray) -> np.ndarray:
    """What the channel inside sees of a leaf."""
    trees = []

    def average(tree, state):
        trees.append(tree)
        return tree, jnp.zeros_like(tree), state

    spy = Channel(lambda tree: (), average, lambda tree: 0, "workers")
    channel = in_frequencies(spy, chunk=chunk)
    channel.average(jnp.asarray(leaf), ())
    return np.asarray(trees[0])


@pytest.mark.parametrize(
    ("shape", "chunk", "sides"),
    [
        ((12,), 4, (1, 4)),
        ((8, 6), 4, (4, 3)),
        ((2, 3, 10), 64, (6, 10)),
        ((7, 5), 4, (1, 1)),
        ((), 4, (1, 1)),
        ((128,), 64, (1, 64)),
    ],
)
def test_each_chunk_is_transformed_from_both_sides(shape, chunk, sides, float64):
    x = np.random.default_rng(0).normal(size=shape)
    ours = seen(chunk, x)
    grid = x.reshape(-1, shape[-1] if shape else 1)
    rows, columns = sides
    expected = [
        (
            cosine(rows)
            @ grid[i : i + rows, j : j + columns]
            @ np.transpose(cosine(columns))
        ).reshape(-1)
        for i in range(0, grid.shape[0], rows)
        for j in range(0, grid.shape[1], columns)
    ]
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-13)
    np.testing.assert_allclose(np.sum(ours**2), np.sum(x**2), rtol=1e-13)


def test_what_is_restored_is_what_was_transformed(float64):
    draw = np.random.default_rng(0)
    trees = [draw.normal(size=(3, *shape)) for shape in [(8, 6), (10,), (), (2, 4, 4)]]
    mean, lost, _ = harness.average(in_frequencies(exact(), chunk=4), trees)
    for leaf, ours, own in zip(trees, mean, lost, strict=True):
        np.testing.assert_allclose(ours[0], leaf.mean(axis=0), rtol=0, atol=1e-13)
        assert not np.any(own)


def test_lost_is_what_the_frequencies_lost(float64):
    x = np.random.default_rng(0).normal(size=(1, 8, 4))
    inside = all_gather(top_k_of_rows(3), per_leaf=True)
    mean, lost, _ = harness.average(in_frequencies(inside, chunk=4), x)
    np.testing.assert_allclose(np.asarray(mean) + lost, x, rtol=0, atol=1e-13)
    again = seen(4, np.asarray(mean)[0])
    kept = np.sort(np.abs(seen(4, x[0])), axis=1)[:, -3:]
    np.testing.assert_allclose(np.sort(np.abs(again), axis=1)[:, -3:], kept)
    np.testing.assert_allclose(np.sort(np.abs(again), axis=1)[:, :-3], 0, atol=1e-13)


def test_16_bit_coefficients_travel_and_what_rounding_loses_is_lost():
    x = np.random.default_rng(0).normal(size=(2, 8, 8)).astype(jnp.bfloat16)
    channel = in_frequencies(all_gather(top_k_of_rows(64), per_leaf=True), chunk=8)
    assert message_bits(channel, jnp.zeros((8, 8), jnp.bfloat16)) == 64 * (16 + 6)
    mean, lost, _ = harness.average(channel, x)
    sent = (np.asarray(x).astype(np.float64) - np.asarray(lost)).mean(axis=0)
    np.testing.assert_allclose(mean[0], sent, rtol=0, atol=1e-6)
    assert 0 < np.abs(lost).max() < 0.02


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="`chunk` must be a whole number"):
        in_frequencies(exact(), chunk=0)
    channel = in_frequencies(exact())
    with pytest.raises(TypeError, match="hold real floats"):
        jax.vmap(channel.average, (0, None), axis_name="workers")(
            jnp.ones((2, 3), int), ()
        )
