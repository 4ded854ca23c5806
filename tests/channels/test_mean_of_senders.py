"""Tests of averages over those workers that sent an entry."""

import numpy as np
import pytest

from gmc_jax import (
    all_gather,
    link_traffic,
    mean_of_senders,
    message_bits,
    scaled_sign,
    top_k,
)
from gmc_jax.core import Compressor
from tests.support import harness
from tests.support.meshes import mesh_named, on_mesh, on_one_device, trees_of


def masked(ratio: float) -> Compressor:
    """As `top_k`, with a message that is no `Sparse`."""
    code = top_k(ratio)

    def encode(key, x):
        _, lost = code.encode(key, x)
        return x - lost, lost

    return Compressor(encode, lambda key, messages, like: messages.sum(axis=0))


@pytest.mark.parametrize("code", [top_k(0.3), masked(0.3)], ids=["sparse", "dense"])
@pytest.mark.parametrize(
    "per_leaf", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_each_entry_is_averaged_over_those_that_sent_it(code, per_leaf, float64):
    values = np.random.default_rng(0).normal(size=(5, 20))
    channel = mean_of_senders(code, per_leaf=per_leaf)
    mean, lost, _ = harness.average(channel, values)
    kept = np.argsort(-np.abs(values), axis=1)[:, :6]
    sent = np.zeros_like(values)
    np.put_along_axis(sent, kept, np.take_along_axis(values, kept, 1), 1)
    times = (sent != 0).sum(axis=0)
    assert {0, 1, 2} <= set(times)
    expected = sent.sum(axis=0) / np.maximum(times, 1)
    np.testing.assert_allclose(mean, np.tile(expected, (5, 1)), rtol=1e-14)
    np.testing.assert_array_equal(lost, values - sent)


def test_an_entry_of_zero_was_not_sent():
    values = np.array([[3.0, 0, 0], [5, 0, 2], [0, 0, 4]], np.float32)
    mean, lost, _ = harness.average(mean_of_senders(top_k(1.0)), values)
    np.testing.assert_array_equal(mean[0], [4, 0, 3])
    assert not np.any(lost)


@pytest.mark.slow
def test_equal_workers_have_the_mean_and_disjoint_ones_all_of_it(float64):
    same = np.tile(np.random.default_rng(0).normal(size=20), (4, 1))
    ours, _, _ = harness.average(mean_of_senders(top_k(0.3)), same)
    theirs, _, _ = harness.average(all_gather(top_k(0.3)), same)
    np.testing.assert_allclose(ours, theirs, rtol=1e-14)
    apart = np.diag([1.0, -2, 3, 4])
    ours, _, _ = harness.average(mean_of_senders(top_k(0.25)), apart)
    theirs, _, _ = harness.average(all_gather(top_k(0.25)), apart)
    np.testing.assert_array_equal(ours[0], [1, -2, 3, 4])
    np.testing.assert_array_equal(ours, 4 * np.asarray(theirs))


def test_where_all_send_all_it_is_the_mean(float64):
    values = np.random.default_rng(0).normal(size=(5, 40))
    ours, _, _ = harness.average(mean_of_senders(scaled_sign()), values)
    theirs, _, _ = harness.average(all_gather(scaled_sign()), values)
    np.testing.assert_allclose(ours, theirs, rtol=1e-13, atol=1e-14)


def test_it_sends_what_all_gather_does():
    params = np.zeros(100, np.float32)
    ours, theirs = mean_of_senders(top_k(0.1)), all_gather(top_k(0.1))
    assert message_bits(ours, params) == message_bits(theirs, params)
    assert link_traffic(ours, params, 8) == link_traffic(theirs, params, 8)


def test_large_numbers_have_a_finite_mean():
    most = np.float32(np.finfo(np.float32).max)
    values = np.float32(most * np.array([[1, 1], [1, 1], [0.5, 0.5]]))
    mean, _, _ = harness.average(mean_of_senders(top_k(1.0)), values)
    np.testing.assert_allclose(mean[0], most * np.float32(2.5 / 3), rtol=1e-6)


@pytest.mark.slow
def test_split_leaves_have_the_same_means():
    mesh, channel = mesh_named("2 x 2 x 2"), mean_of_senders(top_k(0.1))
    trees = trees_of(2, "float32")
    (mean, lost, _), _ = on_mesh(channel, trees, mesh)
    expected_mean, expected_lost, _ = on_one_device(channel, trees)
    for name in trees:
        np.testing.assert_array_equal(lost[name], expected_lost[name])
        np.testing.assert_allclose(mean[name], expected_mean[name], rtol=1e-6)


def test_outside_the_axis_the_error_names_it():
    channel = mean_of_senders(top_k(1.0))
    with pytest.raises(NameError, match="`mean_of_senders` needs the named axis"):
        channel.average(np.ones(3), channel.init(np.ones(3)))
