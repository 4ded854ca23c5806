"""Tests of the large entries by a sampled threshold."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax import sampled_top_k, top_k


@functools.cache
def kept(ratio: float, sample: float, d: int, draws: int = 200):
    """A vector without ties, and the messages and masks under different keys."""
    x = np.random.default_rng(0).permutation(np.linspace(1, 2, d)).astype(np.float32)
    x *= np.where(np.arange(d) % 2, -1, 1)
    keys = jax.random.split(jax.random.key(0), draws)
    encode = sampled_top_k(ratio, sample).encode
    messages, lost = jax.jit(jax.vmap(encode, in_axes=(0, None)))(keys, jnp.asarray(x))
    return x, messages, np.asarray(lost) == 0


@pytest.mark.parametrize(
    ("d", "ratio"), [(1, 0.5), (40, 0.05), (40, 1.0), (1000, 0.03)]
)
def test_with_a_sample_of_all_coordinates_it_is_top_k(d, ratio):
    x = jnp.asarray(np.random.default_rng(1).normal(size=d), jnp.float32)
    key = jax.random.key(0)
    _, theirs = jax.jit(top_k(ratio).encode)(key, x)
    _, ours = jax.jit(sampled_top_k(ratio, sample=1).encode)(key, x)
    np.testing.assert_array_equal(ours, theirs)


def test_no_entry_sent_is_smaller_than_one_that_is_not():
    x, _, masks = kept(0.05, 0.05, 1000)
    for mask in masks:
        assert np.abs(x[mask]).min() > np.abs(x[~mask]).max()


def test_if_too_many_reach_the_threshold_the_smallest_are_lost():
    """The third largest of 50 samples lets 20 to 120 of 1000 entries pass."""
    x, messages, masks = kept(0.05, 0.05, 1000)
    capacity = math.ceil(1.3 * 50)
    assert messages.values.shape == (200, capacity)
    counts = masks.sum(axis=1)
    full = counts == capacity

    assert 20 < full.sum() < 180
    assert len(np.unique(counts[~full])) > 20
    largest = np.argsort(-np.abs(x))[:capacity]
    assert masks[full][:, largest].all()


def test_slots_without_an_entry_are_padding():
    x, messages, masks = kept(0.05, 0.05, 1000)
    for indices, values, mask in zip(
        np.asarray(messages.indices), np.asarray(messages.values), masks, strict=True
    ):
        used = indices < 1000
        assert sorted(indices[used]) == np.flatnonzero(mask).tolist()
        assert set(indices[~used]) <= {1000}
        np.testing.assert_array_equal(values[used], x[indices[used]])
        assert not values[~used].any()


@pytest.mark.slow
def test_the_mean_number_sent_is_about_the_ratio():
    _, _, masks = kept(0.1, 0.2, 1000)
    assert 0.8 * 100 < masks.sum(axis=1).mean() < 1.1 * 100


def test_different_keys_sample_different_coordinates():
    _, _, masks = kept(0.05, 0.05, 1000)
    assert len(np.unique(masks, axis=0)) > 10


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_magnitudes_fill_the_message_and_no_more(value):
    x = jnp.full(100, value)
    message, lost = jax.jit(sampled_top_k(0.1, 0.5).encode)(jax.random.key(0), x)
    indices = np.asarray(message.indices)
    assert len(np.unique(indices)) == 13
    assert indices.max() < 100
    np.testing.assert_array_equal(np.flatnonzero(x - lost), np.flatnonzero(x[indices]))


def test_it_finds_all_entries_above_the_threshold_of_a_large_vector():
    """Here the pyramid has several levels."""
    d = 300_000
    x = np.random.default_rng(0).normal(size=d).astype(np.float32)
    message, lost = jax.jit(sampled_top_k(0.001).encode)(jax.random.key(0), x)
    sent = np.asarray(lost) == 0
    assert 100 < sent.sum() <= 390
    assert np.abs(x[sent]).min() > np.abs(x[~sent]).max()
    used = np.asarray(message.indices)[: sent.sum()]
    np.testing.assert_array_equal(np.sort(used), np.flatnonzero(sent))


@pytest.mark.parametrize("sample", [0, -1, 1.5, math.nan])
def test_the_sample_must_be_a_fraction(sample):
    with pytest.raises(ValueError, match=r"`sample` must be in \(0, 1]"):
        sampled_top_k(0.1, sample)
