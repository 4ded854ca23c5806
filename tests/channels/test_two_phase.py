"""Tests of the channel of two messages: what is averaged, lost and sent."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gmc_jax
from gmc_jax import (
    all_gather,
    averaged,
    count_entries,
    dense,
    error_feedback,
    link_traffic,
    message_bits,
    random_k,
    scaled_sign,
    simulated_server,
    top_k,
    two_phase,
    wire_bytes,
)
from tests.support import harness
from tests.support.compressors import like, thinned
from tests.support.meshes import mesh_named, on_mesh, trees_of

CHANNEL, EXACT = two_phase(top_k(0.5)), dense()


def signs(x):
    return np.abs(x).mean() * np.where(x >= 0, 1, -1)


def transcription(values):
    """Mean and lost of [workers, d] by signs, slice by slice, after the docstring."""
    workers, d = values.shape
    size = -(-d // workers)
    padded = np.pad(values, ((0, 0), (0, workers * size - d)))
    mean, lost = np.zeros(workers * size), padded.copy()
    for owner in range(workers):
        part = slice(owner * size, (owner + 1) * size)
        own_mean = np.mean([signs(x) for x in padded[:, part]], axis=0)
        own_mean[np.arange(workers * size)[part] >= d] = 0
        mean[part] = signs(own_mean)
        lost[:, part] -= [signs(x) for x in padded[:, part]]
        lost[owner, part] += workers * (own_mean - mean[part])
    return mean[:d], lost[:, :d]


@pytest.mark.parametrize(("workers", "d"), [(3, 20), (5, 3), (8, 65)])
def test_each_worker_averages_a_slice_and_encodes_it_again(workers, d, float64):
    values = np.random.default_rng(d).normal(size=(workers, d))
    mean, lost, _ = harness.average(two_phase(scaled_sign()), values)
    expected, expected_lost = transcription(values)
    np.testing.assert_allclose(mean, np.tile(expected, (workers, 1)), rtol=1e-12)
    np.testing.assert_allclose(lost, expected_lost, rtol=1e-12, atol=1e-12)


def test_leaf_by_leaf_each_leaf_is_cut(float64):
    """Two leaves of one shape are one stack, and one is no multiple of the workers."""
    draw = np.random.default_rng(0)
    trees = [draw.normal(size=(3, *shape)) for shape in [(2, 4), (5,), (2, 4)]]
    mean, lost, _ = harness.average(two_phase(scaled_sign(), per_leaf=True), trees)
    for leaf, ours, own in zip(trees, mean, lost, strict=True):
        expected, expected_lost = transcription(leaf.reshape(3, -1))
        np.testing.assert_allclose(np.reshape(ours[2], -1), expected, rtol=1e-12)
        np.testing.assert_allclose(
            np.reshape(own, (3, -1)), expected_lost, rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize(
    ("per_leaf", "shared"),
    [
        (True, False),
        pytest.param(False, False, marks=pytest.mark.slow),
        pytest.param(False, True, marks=pytest.mark.slow),
        pytest.param(True, True, marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_draws_follow_the_documented_rule(per_leaf, shared):
    """Seed, step, leaf, worker unless shared, K in its place, slice."""
    code, workers, size = thinned()._replace(shared=shared), 2, 6
    channel = two_phase(code, per_leaf=per_leaf, seed=3)
    draw = np.random.default_rng(1)
    trees = [draw.normal(size=(workers, 2 * size)).astype(np.float32)] * 2
    mean, lost, _ = harness.average(channel, trees, calls=2)
    joined = [*trees] if per_leaf else [np.concatenate(trees, axis=1)]
    ours = [*lost] if per_leaf else [np.concatenate(lost, axis=1)]
    means = [*mean] if per_leaf else [np.concatenate(mean, axis=1)]
    for leaf, values in enumerate(joined):
        key = jax.random.fold_in(jax.random.key(3), 1)
        key = jax.random.fold_in(key, leaf) if per_leaf else key
        for place, part in enumerate(np.split(np.arange(values.shape[1]), workers)):

            def decoded(sender, x, key=key, place=place):
                own = key if shared else jax.random.fold_in(key, sender)
                own = jax.random.fold_in(own, place)
                message, _ = code.encode(own, jnp.asarray(x))
                stacked = jax.tree.map(lambda array: array[None], message)
                return np.asarray(code.decode(own, stacked, like(x)))

            sent = np.stack([decoded(k, values[k, part]) for k in range(workers)])
            own_mean = sent.mean(axis=0)
            expected = decoded(workers, own_mean)
            np.testing.assert_allclose(means[leaf][0, part], expected, rtol=1e-6)
            rest = values[:, part] - sent
            rest[place] += workers * (own_mean - expected)
            np.testing.assert_allclose(ours[leaf][:, part], rest, rtol=1e-5, atol=1e-6)


def test_one_worker_loses_what_encoding_twice_does(float64):
    values = np.random.default_rng(0).normal(size=(1, 30))
    mean, lost, _ = harness.average(two_phase(scaled_sign()), values)
    twice = signs(signs(values[0]))
    np.testing.assert_allclose(mean[0], twice, rtol=1e-12)
    np.testing.assert_allclose(lost[0], values[0] - twice, rtol=1e-12)


@pytest.mark.slow
def test_what_is_served_is_what_a_server_of_slices_serves(float64):
    """As dist-EF-SGDM without residuals, each slice a leaf of its own."""
    values = np.random.default_rng(0).normal(size=(4, 32))
    served, _, _ = harness.average(two_phase(scaled_sign()), values)
    slices = list(values.reshape(4, 4, 8).transpose(1, 0, 2))
    gathered, _, _ = harness.average(all_gather(scaled_sign(), per_leaf=True), slices)
    answer, _, _ = harness.average(
        simulated_server(scaled_sign(), per_leaf=True), gathered
    )
    np.testing.assert_allclose(served[0].reshape(4, 8), [x[0] for x in answer], 1e-12)


def test_a_shared_compressor_loses_nothing_the_second_time(float64):
    values = np.random.default_rng(0).normal(size=(4, 40))
    mean, lost, _ = harness.average(two_phase(random_k(0.3)), values)
    kept = np.asarray(lost) == 0
    assert (kept == kept[0]).all()
    assert kept[0].sum() == 4 * 3
    np.testing.assert_allclose(mean[0], np.where(kept[0], values.mean(axis=0), 0))


@pytest.mark.parametrize("code", [scaled_sign(), top_k(0.3), EXACT], ids=repr)
def test_error_feedback_keeps_both_residuals(code, float64):
    """The mean of residual + the sum of outputs is the mean of the sum of inputs."""
    grads = np.random.default_rng(0).normal(size=(20, 3, 17))
    tx = error_feedback(two_phase(code))
    moved, states = harness.updates(tx, jnp.zeros(17), grads)
    came_in = grads.mean(axis=1).sum(axis=0)
    went_out = moved[:, 0].sum(axis=0)
    residual = states.residual[-1].mean(axis=0)
    np.testing.assert_allclose(went_out + residual, came_in, rtol=0, atol=1e-11)
    assert (np.abs(residual).max() > 0.1) == (code is not EXACT)


@pytest.mark.parametrize(
    "per_leaf", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_about_two_messages_are_sent_whatever_the_number_of_workers(per_leaf):
    """An eighth of a byte for each parameter goes each way."""
    channel, d = two_phase(scaled_sign(), per_leaf=per_leaf), 2**20
    params = [jnp.zeros(d // 2), jnp.zeros(d // 2)]
    tx, batch = averaged(channel), [jnp.zeros((8, d // 2))] * 2
    state = params, tx.init(params)
    train, state = gmc_jax.distribute(harness.step_of(tx), state, batch)
    sent = wire_bytes(train, state, batch)
    by = dict.fromkeys(["all-to-all", "all-gather"], 0)
    for operation in sent.operations:
        by[operation.operation] += operation.bytes
    assert by["all-to-all"] == pytest.approx(d / 8, rel=0.01) == 8 * by["all-gather"]
    assert sent == sum(by.values())
    assert message_bits(channel, params) == pytest.approx(d, rel=0.002)
    for workers in (2, 8, 64):
        traffic = link_traffic(channel, params, workers)
        others = (workers - 1) / workers
        assert traffic.bytes == pytest.approx(2 * others * d / 8, rel=0.005)
    assert link_traffic(channel, params, 8).bytes == 7 * (
        by["all-to-all"] / 8 + by["all-gather"]
    )
    planned = gmc_jax.planning.Pattern("x", (gmc_jax.planning.Sync(channel),))
    assert planned.syncs[0].channel.bits(params) == message_bits(channel, params)


@pytest.mark.slow
def test_devices_agree_with_the_simulation():
    def step(state, value):
        mean, lost, state = CHANNEL.average(value, state)
        return state, (mean, lost)

    values = np.random.default_rng(0).normal(size=(2, 8, 77)).astype(np.float32)
    results = [
        harness.drive(runner, step, CHANNEL.init(values[0, 0]), values)[1]
        for runner in (harness.simulate, gmc_jax.distribute, harness.pmap)
    ]
    for other in results[1:]:
        chex.assert_trees_all_equal(results[0], other)


@pytest.mark.slow
def test_split_leaves_are_cut_leaf_by_leaf():
    """Nothing is lost of what any device holds; shards have scales of their own."""
    mesh = mesh_named("2 x 2 x 2")
    trees = trees_of(2, "float32")
    (mean, lost, _), _ = on_mesh(two_phase(dense(), per_leaf=True), trees, mesh, 1)
    for name, leaf in trees.items():
        np.testing.assert_allclose(mean[name][0], leaf.mean(axis=0))
        assert not np.any(lost[name])
    signed = two_phase(scaled_sign(), per_leaf=True)
    (mean, lost, _), _ = on_mesh(signed, trees, mesh, 1)
    for name, leaf in trees.items():
        sent = (leaf - lost[name]).mean(axis=0)
        np.testing.assert_allclose(mean[name][1], sent, rtol=1e-5, atol=1e-6)
        assert np.any(lost[name])
    with pytest.raises(ValueError, match=r"split inside .* `two_phase\(..., per_leaf"):
        on_mesh(two_phase(dense()), trees, mesh, 1)


@pytest.mark.slow
def test_devices_draw_for_themselves_and_their_copies_alike():
    channel = two_phase(thinned(), per_leaf=True)
    trees = jax.tree.map(np.ones_like, trees_of(2, "float32"))
    (mean, lost, _), _ = on_mesh(channel, trees, mesh_named("2 x 2 x 2"), 1)
    for name, tree in trees.items():
        sent = (tree - lost[name]).mean(axis=0)
        np.testing.assert_allclose(mean[name][0], sent, rtol=1e-5, atol=1e-6)
    left, right = np.split(mean["columns"][0], 2, axis=1)
    assert not np.array_equal(left, right)


def test_counting_counts_words_and_scales():
    assert count_entries(two_phase(scaled_sign())).entries({"x": jnp.zeros(100)}) == 5


def test_errors_name_what_is_wrong():
    channel = two_phase(dense())
    with pytest.raises(NameError, match="`two_phase` needs the named axis"):
        channel.average(jnp.ones(3), channel.init(jnp.ones(3)))
    with pytest.raises(TypeError, match="hold real floats"):
        harness.average(channel, np.ones((2, 3), int))
    assert two_phase(dense(), axis_name="replicas").axis_name == "replicas"
