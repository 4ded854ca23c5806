"""Tests of resizing leaves of all dtypes, random keys, and states with hooks."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import resize
from gmc_jax.channels.count_entries import CountEntriesState
from gmc_jax.core import Tree


@gmc_jax.with_hooks
class Follower(NamedTuple):
    """The state of a foreign inner optimizer that follows synchronisations."""

    distance: Tree
    synchronisations: Tree

    def on_sync(self, start: Tree, end: Tree) -> "Follower":
        distance = optax.tree.add(self.distance, optax.tree.sub(end, start))
        return Follower(distance, self.synchronisations + 1)


def test_hooks_of_foreign_states_are_called():
    params = np.array([[1, 2], [3, 6], [5, 1]], np.float32)
    for own in (True, False):  # Whether workers differ.
        x = params if own else params[0]
        state = {"x": x, "deep": (Follower(10 * x, np.int32(4)),)}
        layout = by_hand({"x": own, "deep": (Follower(own, False),)}, state, 3)
        new = resize(state, layout, 2, params=lambda state: state["x"])
        mean = np.broadcast_to(x.mean(axis=0), (2, 2)) if own else x
        np.testing.assert_allclose(new["x"], mean)
        np.testing.assert_allclose(new["deep"][0].distance, 10 * mean)
        assert new["deep"][0].synchronisations == 5


def by_hand(differs: Tree, leaves: Tree, workers: int) -> gmc_jax.Layout:
    """The layout of kept leaves."""
    shapes = jax.tree.map(
        lambda leaf, own: jax.ShapeDtypeStruct(
            leaf.shape[1:] if own else leaf.shape, leaf.dtype
        ),
        leaves,
        differs,
    )
    return gmc_jax.Layout(workers, "workers", differs, shapes)


def resized_leaf(leaf, workers: int) -> np.ndarray:
    layout = by_hand(True, jnp.asarray(leaf), len(leaf))
    return gmc_jax.fetch(resize(leaf, layout, workers))


@pytest.mark.parametrize(
    ("numbers", "workers", "expected"),
    [
        ([5, 5, 5, 5], 3, [5, 5, 5]),
        ([1, 2, 3, 4], 2, [2, 3]),
        ([1, 2], 4, [1, 2, 1, 2]),
        ([-1, -2, -3, -6], 2, [-3, -3]),
        ([7], 3, [7, 7, 7]),
        ([2**31 - 1, 2**31 - 1], 3, [2**31 - 1] * 3),
        ([-(2**31), 2**31 - 1], 4, [-1, -1, 0, 0]),
    ],
)
def test_the_mean_of_whole_numbers_is_distributed(numbers, workers, expected):
    ours = resized_leaf(np.array(numbers, np.int32), workers)
    assert ours.dtype == np.int32
    assert sorted(ours.tolist()) == sorted(expected)


def test_large_numbers_are_exact(float64):
    numbers = np.array([2**64 - 1, 2**64 - 3, 2**64 - 1, 2**64 - 3], np.uint64)
    ours = resized_leaf(numbers, 2)
    assert ours.tolist() == [2**64 - 2] * 2


def test_booleans_are_decided_by_majority():
    ours = resized_leaf(np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 0]], bool), 2)
    assert ours.tolist() == [[True, False, True, False]] * 2
    tie = resized_leaf(np.array([True, False]), 5)
    assert tie.tolist() == [False] * 5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "complex64"])
def test_means_are_rounded_once(dtype):
    draw = np.random.default_rng(0)
    values = jnp.asarray(draw.normal(size=(7, 50)), dtype)
    exactly = np.asarray(values).astype("complex128").mean(axis=0)
    if dtype != "complex64":
        exactly = exactly.real
    expected = np.asarray(jnp.asarray(exactly.astype(np.asarray(values).dtype)))
    ours = resized_leaf(values, 3)
    assert ours.dtype == expected.dtype
    for worker in ours:
        np.testing.assert_array_equal(worker, expected)


def test_non_finite_numbers_stay_non_finite():
    ours = resized_leaf(np.array([[1, np.nan, np.inf], [2, 0, 1]], np.float32), 1)
    assert ours[0, 0] == 1.5
    assert not np.isfinite(ours[0, 1:]).any()


def distinct(keys: np.ndarray) -> int:
    return len({row.tobytes() for row in keys.reshape(-1, keys.shape[-1])})


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_keys_of_workers_differ(impl, shape):
    size = int(np.prod(shape))
    keys = jax.random.split(jax.random.key(0, impl=impl), (8, *shape))
    layout = by_hand(True, keys, 8)
    for workers in (4, 2, 6):
        keys = resize(keys, layout, workers)
        layout = by_hand(True, keys, workers)
        assert keys.shape == (workers, *shape)
        assert jax.random.key_impl(keys) == impl
        data = gmc_jax.fetch(keys)
        assert distinct(data) == workers * size
        again = resize(data, layout, workers)  # As `fetch` has them.
        assert again.dtype == keys.dtype
        np.testing.assert_array_equal(gmc_jax.fetch(again), data)


def test_the_first_workers_keep_their_keys_raw_ones_too():
    keys = jax.vmap(jax.random.PRNGKey)(jnp.arange(8))
    four = resized_leaf(np.asarray(keys), 4)
    np.testing.assert_array_equal(four, keys[:4])
    twelve = resized_leaf(np.asarray(keys), 12)
    np.testing.assert_array_equal(twelve[:8], keys)
    assert distinct(twelve) == 12
    steps = jax.vmap(jax.random.fold_in, (0, None))
    for folded in range(12):  # A loop's own draws are none of them.
        drawn = np.concatenate([steps(keys, folded), twelve[8:]])
        assert distinct(drawn) == 12


def test_counts_beyond_32_bits():
    halves = np.array([[1, 2**32 - 2], [2, 0], [1, 2**32 - 2], [2, 0]], np.uint32)
    nothing = np.zeros(2, np.uint32)
    fields: list[Any] = [halves, nothing, nothing, np.array(True), ()]
    own: list[Any] = [True, False, False, False, ()]
    counts, differs = CountEntriesState(*fields), CountEntriesState(*own)
    new = resize(counts, by_hand(differs, counts, 4), 3)
    whole = [int(high) << 32 | int(low) for high, low in np.asarray(new.up)]
    assert whole == [2**33 - 1] * 3
    chex.assert_trees_all_equal(new.down, nothing)
