"""Tests of delayed synchronisation: means, operands, hooks, precision, traffic."""

import jax
import numpy as np
import pytest

import gmc_jax
from gmc_jax import all_gather, delayed_sync, exact, slowmo, top_k
from gmc_jax.utils.trees import find
from tests.support import harness, problems
from tests.support.harness import moves, walked
from tests.support.late import senders_that_wait
from tests.support.virtual_iterates import unruly

CHANNELS = {
    "exact": exact(),
    "top_k": all_gather(top_k(0.2)),
    "unruly": all_gather(unruly()),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "unruly" else pytest.mark.slow)
        for name in CHANNELS
    ],
)
def test_the_mean_moves_by_the_mean_update_through_any_channel(name):
    x, states = walked(delayed_sync(CHANNELS[name], 3), moves(10))
    taken = problems.flat(moves(10), leading=2).mean(axis=1)
    np.testing.assert_allclose(
        np.diff(x.mean(axis=1), axis=0), taken, rtol=0, atol=2e-5 * np.abs(x).max()
    )
    anchors = problems.flat(states.anchor, leading=1)
    arrived = [np.any(change) for change in np.diff(anchors, axis=0)]
    assert arrived == [False] * 5 + [True, False, False, True, False]


def test_a_worker_adds_its_own_moves_to_the_mean_that_arrives():
    x, _ = walked(delayed_sync(exact(), 3), moves(6))
    mean, own = x[3].mean(axis=0), problems.flat(moves(6), leading=2)[3:].sum(axis=0)
    np.testing.assert_allclose(x[6], mean + own, rtol=0, atol=1e-5)
    assert np.ptp(x[3], axis=0).min() > 0.1


def test_no_operand_of_a_collective_depends_on_this_call():
    tx = delayed_sync(all_gather(top_k(0.2)), 3)
    assert senders_that_wait(tx, harness.start()) == []
    soon = gmc_jax.elastic_sync(all_gather(top_k(0.2)), 0.9, 3)
    assert senders_that_wait(soon, harness.start())


def test_after_an_outer_synchronisation_workers_stay_together():
    """What is in flight moves with them, and pulls nobody away."""
    still = jax.tree.map(lambda x: np.concatenate([x[:8], 0 * x[8:]]), moves(20))
    inner = delayed_sync(exact(), 3)
    tx = slowmo(inner, exact(), period=8, slow_momentum=0.0)
    x, states = walked(tx, still)
    assert np.ptp(x[7], axis=0).max() > 0.1
    np.testing.assert_allclose(x[8:], x[8:9, :1] + 0 * x[8:], rtol=0, atol=1e-5)
    (state,) = find(states, gmc_jax.DelayedSyncState)
    anchors = problems.flat(state.anchor, leading=1)
    np.testing.assert_allclose(anchors[9], x[8, 0], rtol=0, atol=1e-5)


def test_the_anchor_of_16_bit_parameters_is_float32():
    tx = delayed_sync(exact(), 1)
    params = jax.tree.map(lambda x: x.astype("bfloat16"), harness.start())
    _, states = harness.updates(tx, params, jax.tree.map(lambda x: x / 64, moves(3)))
    assert states.anchor["bias"].dtype == states.sent["bias"].dtype == np.float32
    assert np.any(states.anchor["bias"][-1] != states.anchor["bias"][0])


def test_steps_in_between_send_nothing():
    tx = delayed_sync(exact(), 3)
    batch = jax.tree.map(lambda b: b[0], harness.targets(harness.start(), 1))
    state = harness.start(), tx.init(harness.start())
    train, state = gmc_jax.distribute(harness.step_of(tx), state, batch)
    sent = gmc_jax.wire_bytes(train, state, batch)
    assert (sent.always, sent) == (0, 4 * 20)
    assert gmc_jax.message_bits(tx, harness.start()) == pytest.approx(32 * 20 / 3)


def test_the_parameters_are_asked_for():
    tx = delayed_sync(exact(), 2)
    with pytest.raises(ValueError, match="`delayed_sync` computes updates from"):
        tx.update(harness.start(), tx.init(harness.start()))
