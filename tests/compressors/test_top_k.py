"""Tests of the largest entries."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmc_jax import top_k
from gmc_jax.compressors import _selection

KEY = jax.random.key(0)


@functools.cache
def selections(ratio: float):
    """The places that `top_k` and `jax.lax.top_k` choose, ascending."""

    def select(x):
        message, lost = top_k(ratio).encode(KEY, x)
        theirs = jax.lax.top_k(jnp.abs(x), message.values.size)[1]
        return message, lost, jnp.sort(theirs)

    return jax.jit(select)


def assert_selects_like_lax(x, ratio):
    message, lost, theirs = selections(ratio)(x)
    chosen = np.asarray(message.indices)
    np.testing.assert_array_equal(np.sort(chosen), theirs)
    assert np.asarray(message.values).tobytes() == x[chosen].tobytes()
    assert np.delete(lost, chosen).tobytes() == np.delete(x, chosen).tobytes()


@given(
    size=st.sampled_from([(1, 0.5), (3, 1.0), (20, 0.4), (999, 0.002)]),
    dtype=st.sampled_from(["float32", "bfloat16", "float16"]),
    specials=st.sets(st.sampled_from([0.0, -0.0, 1.0, -1.0, math.inf, math.nan])),
    seed=st.integers(0, 2**16),
)
@settings(deadline=None, derandomize=True, max_examples=100)
def test_it_selects_like_lax_top_k(size, dtype, specials, seed):
    d, ratio = size
    draw = np.random.default_rng(seed)
    x = draw.normal(size=d)
    special = draw.random(d) < 0.5
    if specials:
        x = np.where(special, draw.choice(sorted(specials, key=repr), d), x)
    assert_selects_like_lax(x.astype(jnp.dtype(dtype)), ratio)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("kind", ["normal", "ties", "clustered", "sparse", "nan"])
def test_it_selects_like_lax_top_k_in_large_vectors(kind, dtype):
    d = 300_000
    draw = np.random.default_rng(0)
    x = draw.normal(size=d)
    if kind == "ties":
        x = np.round(x)
    if kind == "clustered":  # All large entries are in a few blocks, one the last.
        x[-400:] *= 100
    if kind == "sparse":
        x[draw.random(d) < 0.9999] = 0
    if kind == "nan":
        x[draw.choice(d, 50)] = math.nan
        x[draw.choice(d, 50)] = -math.inf
    with jax.enable_x64(dtype == "float64"):
        assert_selects_like_lax(x.astype(jnp.dtype(dtype)), ratio=0.001)


def test_ties_go_to_the_lowest_index():
    x = jnp.array([1.0, -2, 2, 0, -2, 2])
    message, lost = top_k(0.5).encode(KEY, x)
    np.testing.assert_array_equal(np.sort(message.indices), [1, 2, 4])
    np.testing.assert_array_equal(lost, [1, 0, 0, 0, 0, 2])


def test_subnormal_magnitudes_are_ordered():
    tiny = np.finfo(np.float32).smallest_subnormal
    x = jnp.asarray(tiny * np.array([1, 3, 0, 2], np.float32))
    message, _ = top_k(0.5).encode(KEY, x)
    np.testing.assert_array_equal(np.sort(message.indices), [1, 3])


@pytest.mark.parametrize("ratio", [0.001, 0.1, 0.5, 0.99])
def test_it_keeps_at_least_the_ratio_of_the_energy(ratio):
    for seed in range(20):
        x = np.random.default_rng(seed).normal(size=64).astype(np.float32)
        _, lost, _ = selections(ratio)(x)
        share = math.ceil(ratio * 64) / 64
        assert np.sum(np.square(lost)) <= (1 - share) * np.sum(x**2) * (1 + 1e-6)


def test_the_bound_on_the_energy_is_attained():
    x = jnp.ones(10)
    _, lost = top_k(0.3).encode(KEY, x)
    assert np.sum(np.square(lost)) == 7


def test_a_nan_is_sent_and_shows_in_lost():
    message, lost = top_k(0.25).encode(KEY, jnp.array([1, math.nan, 3, 4]))
    assert message.indices.tolist() == [1]
    assert np.isnan(message.values).all()
    assert np.isnan(lost).tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    ("ratio", "d", "s"),
    [
        (jnp.float32(0.5), 10, 5),
        (np.float32(1), 2**24 + 3, 2**24 + 3),
        (np.float16(0.01), 100_000, 1001),
        (1e-9, 10, 1),
    ],
)
def test_a_ratio_may_be_an_array_of_any_precision(ratio, d, s):
    assert _selection.num_kept(ratio, d) == s
