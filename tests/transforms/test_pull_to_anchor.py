"""Tests of pulls to a late anchor: means, hooks, precision, operands."""

import jax
import numpy as np
import pytest

import gmc_jax
from gmc_jax import all_gather, exact, pull_to_anchor, slowmo, top_k
from gmc_jax.utils.trees import find
from tests.support import harness, problems
from tests.support.harness import moves, walked
from tests.support.late import senders_that_wait


def test_what_the_pull_leaves_of_the_updates_moves_the_mean():
    x, _ = walked(pull_to_anchor(exact(), 0.75, 3), moves(9))
    means = x.mean(axis=1)
    updates = problems.flat(moves(9), leading=2).mean(axis=1)
    periods = updates.reshape(3, 3, -1).sum(axis=1)
    np.testing.assert_allclose(
        np.diff(means[::3], axis=0), 0.25 * periods, rtol=0, atol=1e-5
    )
    np.testing.assert_allclose(
        np.diff(means, axis=0)[::3], updates[::3], rtol=0, atol=1e-5
    )
    assert np.ptp(x[-1], axis=0).min() > 0.1


def test_no_operand_of_a_collective_depends_on_this_call():
    tx = pull_to_anchor(all_gather(top_k(0.2)), 0.5, 3)
    assert senders_that_wait(tx, harness.start()) == []


@pytest.mark.slow
def test_after_an_outer_synchronisation_workers_stay_together():
    still = jax.tree.map(lambda x: np.concatenate([x[:8], 0 * x[8:]]), moves(20))
    inner = pull_to_anchor(exact(), 0.5, 3)
    tx = slowmo(inner, exact(), period=8, slow_momentum=0.0)
    x, states = walked(tx, still)
    assert np.ptp(x[7], axis=0).max() > 0.1
    np.testing.assert_allclose(x[8:], x[8:9, :1] + 0 * x[8:], rtol=0, atol=1e-5)
    (state,) = find(states, gmc_jax.PullToAnchorState)
    anchors = problems.flat(state.anchor, leading=1)
    np.testing.assert_allclose(anchors[9], x[8, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("decay", [None, 0.5])
def test_the_state_of_16_bit_parameters_is_float32(decay):
    tx = pull_to_anchor(exact(), 0.5, 1, decay=decay)
    params = jax.tree.map(lambda x: x.astype("bfloat16"), harness.start())
    state = tx.init(params)
    floats = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
    assert len(floats) == (4 if decay is None else 6)
    assert {leaf.dtype for leaf in floats} == {np.dtype("float32")}


def test_the_parameters_are_asked_for():
    tx = pull_to_anchor(exact(), 0.5, 2)
    with pytest.raises(ValueError, match="`pull_to_anchor` computes updates from"):
        tx.update(harness.start(), tx.init(harness.start()))
