"""Tests of the counts of what goes up and what comes down."""

import chex
import jax
import numpy as np
import pytest

from gmc_jax import (
    all_gather,
    all_reduce,
    count_entries,
    exact,
    majority_vote,
    random_block,
    scaled_sign,
    top_k,
)
from tests.support.harness import average


def number(count):
    """A count, [workers, 2] halves, as integers [workers]."""
    return np.asarray(count).astype(np.uint64) @ np.array([2**32, 1], np.uint64)


def sparse_trees(workers: int = 3):
    """Trees of 50 entries of which worker k holds only 2 (k + 1) that are not zero."""
    draw = np.random.default_rng(0)
    vectors = np.zeros((workers, 50), np.float32)
    for k in range(workers):
        places = draw.choice(50, 2 * (k + 1), replace=False)
        vectors[k, places] = draw.normal(size=2 * (k + 1))
    return {"a": vectors[:, :20].reshape(workers, 4, 5), "b": vectors[:, 20:]}


@pytest.mark.parametrize("per_leaf", [False, True])
def test_indexed_entries_are_counted_by_their_support(per_leaf):
    trees = sparse_trees()
    channel = all_gather(top_k(0.08), per_leaf=per_leaf)
    mean, lost, _ = average(channel, trees)
    _, _, state = average(count_entries(channel), trees, calls=3)

    sent = jax.tree.map(np.not_equal, trees, lost)
    up = np.sum(
        [leaf.reshape(3, -1).sum(axis=1) for leaf in jax.tree.leaves(sent)], axis=0
    )
    down = sum(np.count_nonzero(leaf[0]) for leaf in jax.tree.leaves(mean))
    np.testing.assert_array_equal(number(state.up), 3 * up)
    np.testing.assert_array_equal(number(state.down), [3 * down] * 3)
    np.testing.assert_array_equal(number(state.dense), [3 * 50] * 3)
    # Zeros fill some slots of some messages, and some workers meet in a coordinate.
    assert up.min() == 2
    assert up.max() <= (5 if per_leaf else 4)
    assert state.indexed.all()


def test_values_without_indices_all_count():
    trees = sparse_trees()
    _, _, state = average(count_entries(all_reduce(random_block(0.08))), trees, calls=3)
    np.testing.assert_array_equal(number(state.up), [3 * 4] * 3)
    np.testing.assert_array_equal(number(state.down), [3 * 4] * 3)
    assert not state.indexed.any()


def test_a_dense_mean_counts_everything():
    _, _, state = average(count_entries(exact()), sparse_trees())
    for count in (state.up, state.down, state.dense):
        np.testing.assert_array_equal(number(count), [50] * 3)


@pytest.mark.parametrize(
    "channel", [all_gather(top_k(0.08)), all_reduce(random_block(0.08))]
)
def test_extra_calls_count_but_have_no_dense_average_to_be_set_against(channel):
    _, _, plain = average(count_entries(channel), sparse_trees(), calls=3)
    _, _, extra = average(count_entries(channel, extra=True), sparse_trees(), calls=3)
    chex.assert_trees_all_equal(extra, plain._replace(dense=np.zeros_like(plain.dense)))
    assert number(extra.up).min() > 0


@pytest.mark.parametrize("extra", [False, True])
def test_counting_changes_nothing_else(extra):
    trees = sparse_trees()
    channel = all_gather(top_k(0.08), seed=3)
    plain = average(channel, trees, calls=2)
    mean, lost, state = average(count_entries(channel, extra=extra), trees, calls=2)
    chex.assert_trees_all_equal(plain, (mean, lost, state.inner))
    one = jax.tree.map(lambda leaf: leaf[0], trees)
    assert count_entries(channel).bits(one) == channel.bits(one)
    assert count_entries(channel).entries(one) == channel.entries(one)


def test_counts_pass_32_bits():
    trees = {"a": np.ones((2, 10), np.float32)}
    channel = count_entries(exact())
    state = channel.init({"a": trees["a"][0]})
    full = np.array([0, 2**32 - 4], np.uint32)
    state = type(state)(full, full, full, state.indexed, state.inner)
    _, _, state = average(channel, trees, state)
    assert number(state.up).tolist() == [2**32 + 6] * 2
    assert number(state.dense).tolist() == [2**32 + 6] * 2


def test_of_what_is_not_a_number_no_more_counts_than_is_sent():
    """NaN is not equal to itself, but what is lost is not sent."""
    trees = np.full((2, 50), np.nan, np.float32)
    _, _, state = average(count_entries(all_gather(top_k(0.1))), trees)
    assert (number(state.up) <= 5).all()


def test_signs_count_as_words():
    """Of 50 signs there are two words of 32, and a scale beside them."""
    _, _, state = average(count_entries(all_gather(scaled_sign())), sparse_trees())
    assert number(state.up).tolist() == number(state.down).tolist() == [3] * 3
    _, _, state = average(count_entries(majority_vote()), sparse_trees())
    assert number(state.up).tolist() == [2] * 3
