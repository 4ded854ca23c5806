"""Tests of the vote: what wins, what it costs, and who cannot change it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gmc_jax
from gmc_jax import averaged, count_entries, majority_vote, message_bits, wire_bytes
from tests.support import harness

VOTE = majority_vote()


def vote(values):
    """The mean, everybody's, and what was lost of one array [workers, ...]."""
    mean, lost, _ = harness.average(VOTE, values)
    return np.asarray(mean), np.asarray(lost)


@pytest.mark.parametrize("workers", [1, 2, 5, 8])
@pytest.mark.parametrize("d", [1, 33, 100])
def test_the_majority_wins_every_entry(workers, d):
    draw = np.random.default_rng(workers * d)
    values = draw.normal(size=(workers, d)).astype(np.float32)
    mean, lost = vote(values)
    plus = (values > 0).sum(axis=0)
    expected = np.where(2 * plus >= workers, np.float32(1), np.float32(-1))
    np.testing.assert_array_equal(mean, np.stack([expected] * workers))
    np.testing.assert_array_equal(lost, values - expected)


def test_zeros_vote_plus_ties_go_to_plus_and_nan_is_minus():
    values = np.array(
        [[0, 0, -1, -1, np.nan, np.inf], [-0.0, -1, -1, 1, 1, -np.inf]], np.float32
    )
    mean, _ = vote(values)
    np.testing.assert_array_equal(mean[0], [1, 1, -1, 1, 1, 1])
    alone, _ = vote(np.array([[np.nan, -np.inf, 0]], np.float32))
    np.testing.assert_array_equal(alone[0], [-1, -1, 1])


@given(
    st.integers(1, 7).flatmap(
        lambda k: st.tuples(
            st.just(k), st.integers(0, (k - 1) // 2), st.integers(0, 2**31)
        )
    )
)
@settings(deadline=None, derandomize=True, max_examples=15)
def test_a_flipped_minority_changes_nothing_where_the_honest_agree(case):
    workers, flipped, seed = case
    draw = np.random.default_rng(seed)
    values = draw.normal(size=(workers, 40)).astype(np.float32)
    values[flipped:, :20] = np.abs(values[flipped:, :20]) * draw.choice([-1, 1], 20)
    agree = np.sign(values[flipped:, :20])
    assert (agree == agree[0]).all()
    values[:flipped] *= -1
    mean, _ = vote(values)
    np.testing.assert_array_equal(mean[0, :20], agree[0])


def test_what_all_workers_have_alike_is_voted_for_too():
    channel = majority_vote()
    vote = jax.vmap(
        lambda tree: channel.average(tree, ())[0],
        in_axes=None,
        axis_size=3,
        axis_name="workers",
    )
    np.testing.assert_array_equal(vote(jnp.float32([1, -2, 3])), [[1, -1, 1]] * 3)


def test_a_tree_of_several_dtypes_keeps_them():
    trees = {
        "half": jnp.asarray([[1.0, -2], [3, -4], [-5, -6]], jnp.bfloat16),
        "single": jnp.asarray([[[0.5]], [[-0.5]], [[-2.0]]], jnp.float32),
        "empty": jnp.zeros((3, 0), jnp.float16),
    }
    mean, lost, _ = harness.average(VOTE, trees)
    np.testing.assert_array_equal(mean["half"][0], [1, -1])
    np.testing.assert_array_equal(mean["single"], -np.ones((3, 1, 1)))
    for tree in (mean, lost):
        assert {str(leaf.dtype) for leaf in jax.tree.leaves(tree)} == {"float32"}
    np.testing.assert_array_equal(lost["half"][2], [-6, -5])


def test_the_law_of_channels_is_met_as_well():
    values = np.random.default_rng(0).normal(size=(5, 40)).astype(np.float32)
    mean, lost = vote(values)
    np.testing.assert_allclose((values - lost).mean(axis=0), mean[0], atol=1e-6)


def program(d: int):
    """A compiled step of eight workers who vote on d entries."""
    tx = averaged(VOTE)
    params = jnp.zeros(d)
    state = params, tx.init(params)
    batch = jnp.zeros((8, d))
    train, state = gmc_jax.distribute(harness.step_of(tx), state, batch)
    return train, state, batch


@pytest.mark.parametrize("d", [100, 1_000_000])
def test_a_bit_goes_each_way_and_nothing_is_workers_times_d(d):
    train, state, batch = program(d)
    sent = wire_bytes(train, state, batch)
    share = 4 * -(-d // (8 * 32))  # bytes
    assert {operation[:2] for operation in sent.operations} == {
        ("all-to-all", 8 * share),
        ("all-gather", share),
    }
    assert sent == 9 * share
    assert d < 1000 or 8 * share == pytest.approx(d / 8, rel=0.01)
    assert message_bits(VOTE, state[0]) == pytest.approx(d, abs=31)
    # Padded to whole words for each worker, small trees take more than their bits.
    assert 8 * 8 * share >= message_bits(VOTE, state[0])
    assert (d > 1000) or 8 * 8 * share == 256 > message_bits(VOTE, state[0]) == 128
    text = train.lower(state, batch).compile().as_text() or ""
    assert "all-to-all" in text
    for shape in (f"[8,{d}]", f"[{8 * d}]"):
        assert shape not in text


def test_devices_agree_with_the_simulation():
    def step(state, value):
        mean, lost, _ = VOTE.average(value, ())
        return state, (mean, lost)

    values = np.random.default_rng(0).normal(size=(1, 8, 77)).astype(np.float32)
    results = [
        harness.drive(runner, step, (), values)[1]
        for runner in (harness.simulate, gmc_jax.distribute, harness.pmap)
    ]
    for other in results[1:]:
        np.testing.assert_array_equal(results[0][0], other[0])
        np.testing.assert_array_equal(results[0][1], other[1])


def test_counting_counts_words():
    assert count_entries(VOTE).entries({"x": jnp.zeros(100), "y": jnp.zeros(20)}) == 4


def test_errors_name_what_is_wrong():
    with pytest.raises(NameError, match="`majority_vote` needs the"):
        VOTE.average(jnp.ones(3), ())
    with pytest.raises(TypeError, match="hold real floats"):
        harness.average(VOTE, np.ones((2, 3), int))
    assert majority_vote(axis_name="replicas").axis_name == "replicas"
