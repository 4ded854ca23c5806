"""Tests of the entries whose magnitude reaches a fixed level."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax import all_gather, error_feedback, threshold, top_k
from tests.support import problems

KEY = jax.random.key(0)


@functools.cache
def coder(level: float, ratio: float):
    """Encodes a vector, compiled once for each shape and dtype."""
    return jax.jit(functools.partial(threshold(level, ratio).encode, KEY))


def normal(d: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(0).normal(size=d).astype(jnp.dtype(dtype))


def test_every_entry_that_reaches_the_level_is_sent():
    x = jnp.array([0.5, -0.5, 0.49, 0, 2, -3, -0.49, 0.1])
    message, lost = coder(0.5, 1.0)(x)
    assert message.indices.tolist() == [0, 1, 4, 5, 8, 8, 8, 8]
    np.testing.assert_array_equal(message.values, [0.5, -0.5, 2, -3, 0, 0, 0, 0])
    np.testing.assert_allclose(lost, [0, 0, 0.49, 0, 0, 0, -0.49, 0.1])


def test_if_too_many_reach_the_level_the_smallest_are_lost():
    """Four reach the level. Their order tells the smallest from the last."""
    x = jnp.array([0.6, -0.7, 0.2, 4, -5, 0, 0, 0])
    message, lost = coder(0.5, 0.25)(x)
    assert message.indices.tolist() == [3, 4]
    np.testing.assert_allclose(lost, [0.6, -0.7, 0.2, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("ratio", [0.01, 0.3, 1.0])
def test_if_every_entry_reaches_the_level_it_is_top_k(ratio):
    x = normal(200)
    ours, lost = coder(1e-30, ratio)(x)
    theirs, rest = jax.jit(top_k(ratio).encode)(KEY, x)
    np.testing.assert_array_equal(ours.indices, theirs.indices)
    np.testing.assert_array_equal(lost, rest)


def test_if_no_entry_reaches_the_level_all_are_lost():
    x = normal(50)
    message, lost = coder(100.0, 0.1)(x)
    assert message.indices.tolist() == [50] * 5
    assert not np.any(message.values)
    np.testing.assert_array_equal(lost, x)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
@pytest.mark.parametrize("level", [0.3, 0.7, 2.0])
def test_the_level_has_the_dtype_of_the_vector(level, dtype):
    """Entries are compared as `jnp.abs(x) >= level` compares them."""
    x = normal(500, dtype)
    with jax.enable_x64(dtype == "float64"):
        x[:20] = jnp.asarray(level, dtype)
        _, lost = coder(level, 1.0)(x)
        kept = np.asarray(jnp.abs(x) >= level)
    assert 20 <= kept.sum() < 500
    np.testing.assert_array_equal(lost, np.where(kept, 0, x))


@pytest.mark.parametrize("factor", [4.0, 0.25])
def test_scaling_the_vector_and_the_level_scales_the_message(factor):
    x = normal(100)
    message, lost = coder(1.5, 0.2)(x)
    scaled, scaled_lost = coder(factor * 1.5, 0.2)(factor * x)
    assert 0 < np.count_nonzero(message.values) < 20
    np.testing.assert_array_equal(scaled.values, factor * message.values)
    np.testing.assert_array_equal(scaled.indices, message.indices)
    np.testing.assert_array_equal(scaled_lost, factor * lost)


@pytest.mark.parametrize("ratio", [0.001, 0.0001])
def test_it_finds_all_entries_that_reach_the_level_in_a_large_vector(ratio):
    """About 80 reach the level: 300 slots hold all, 30 slots the largest."""
    x = normal(300_000)
    message, lost = coder(3.65, ratio)(x)
    order = np.argsort(-np.abs(x))
    reach = np.count_nonzero(np.abs(x) >= 3.65)
    assert 30 < reach < 300
    sent = np.sort(order[: min(reach, math.ceil(ratio * x.size))])
    np.testing.assert_array_equal(np.asarray(message.indices)[: sent.size], sent)
    np.testing.assert_array_equal(np.flatnonzero(lost != x), sent)


def test_entries_that_are_not_finite_are_sent_and_a_nan_shows_in_lost():
    message, lost = coder(1.0, 0.5)(jnp.array([2, math.nan, 0, 3, math.inf, 4]))
    assert message.indices.tolist() == [1, 4, 5]
    assert np.isnan(lost).tolist() == [False, True, False, False, False, False]
    np.testing.assert_array_equal(np.delete(lost, 1), [2, 0, 3, 0, 0])


def test_with_enough_slots_the_residual_is_below_the_level():
    tx = error_feedback(all_gather(threshold(2.0, 1.0)))
    gradients = np.random.default_rng(1).normal(size=(30, 2, 20)).astype(np.float32)
    _, states = problems.updates(tx, np.zeros(20, np.float32), gradients)
    residual = np.abs(problems.residual(states))
    assert 1 < residual.max() < 2


@pytest.mark.parametrize("level", [0, -1.0, math.nan, math.inf])
def test_the_level_must_be_finite_and_positive(level):
    with pytest.raises(ValueError, match=r"^`level` must be finite and greater than 0"):
        threshold(level, 0.1)
