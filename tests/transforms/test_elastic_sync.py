"""Tests of elastic synchronisation: sums, swaps, fixed points, precision, traffic."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import all_gather, elastic_sync, exact, top_k
from gmc_jax.core import Tree
from tests.support import harness, problems
from tests.support.harness import moves
from tests.support.virtual_iterates import unruly

CHANNELS = {
    "exact": exact(),
    "top_k": all_gather(top_k(0.2)),
    "unruly": all_gather(unruly()),
}


def followed(tx: optax.GradientTransformation, updates: Tree):
    """Parameters, [steps + 1, workers, d], and centres, [steps + 1, d]."""
    x, states = harness.walked(tx, updates)
    return x, problems.flat(states.centre, leading=1)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "unruly" else pytest.mark.slow)
        for name in CHANNELS
    ],
)
def test_the_sum_of_workers_and_centre_moves_by_the_updates(name):
    """Through any channel: both ends of a spring feel what was sent."""
    x, centre = followed(elastic_sync(CHANNELS[name], 0.8, 3), moves(7))
    taken = problems.flat(moves(7), leading=2).sum(axis=1)
    total = x.sum(axis=1) + centre
    np.testing.assert_allclose(np.diff(total, axis=0), taken, rtol=0, atol=2e-5)
    pulled = [np.any(change) for change in np.diff(centre, axis=0)]
    assert pulled == [False, False, True] * 2 + [False]
    steps = problems.flat(moves(7), leading=2)
    np.testing.assert_allclose(x[2], x[0] + steps[:2].sum(axis=0), rtol=0, atol=1e-5)


def test_one_worker_and_the_centre_swap():
    x, centre = followed(elastic_sync(exact(), 1.0, 2), moves(2, workers=1))
    ahead = x[1, 0] + problems.flat(moves(2, workers=1), leading=2)[1, 0]
    np.testing.assert_allclose(x[2, 0], centre[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(centre[2], ahead, rtol=0, atol=1e-6)
    assert np.abs(ahead - centre[0]).max() > 0.1


def test_workers_at_the_centre_stay_there():
    still = jax.tree.map(np.zeros_like, moves(4))
    x, centre = followed(elastic_sync(CHANNELS["top_k"], 0.9, 2), still)
    np.testing.assert_array_equal(x, x[:1].repeat(5, axis=0))
    np.testing.assert_array_equal(centre, centre[:1].repeat(5, axis=0))


def test_the_centre_of_16_bit_parameters_is_float32_and_evaluated_in_16_bits():
    tx = elastic_sync(exact(), 0.9, 1)
    params = jax.tree.map(lambda x: x.astype("bfloat16"), harness.start())
    small = jax.tree.map(lambda x: 0 * x + 2**-12, moves(3))
    _, states = harness.updates(tx, params, small)
    assert states.centre["bias"].dtype == np.float32
    assert np.any(states.centre["bias"][-1] != states.centre["bias"][0])
    last = jax.tree.map(lambda leaf: leaf[-1], states)
    model = last.evaluate(params)
    assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {jnp.dtype("bfloat16")}


def test_steps_in_between_send_nothing():
    tx = elastic_sync(exact(), 0.9, 3)
    batch = jax.tree.map(lambda b: b[0], harness.targets(harness.start(), 1))
    state = harness.start(), tx.init(harness.start())
    train, state = gmc_jax.distribute(harness.step_of(tx), state, batch)
    sent = gmc_jax.wire_bytes(train, state, batch)
    assert (sent.always, sent) == (0, 4 * 20)
    assert gmc_jax.message_bits(tx, harness.start()) == pytest.approx(32 * 20 / 3)


def test_the_axis_and_the_parameters_are_asked_for():
    tx = elastic_sync(exact(), 0.9, 2)
    state = tx.init(harness.start())
    with pytest.raises(NameError, match="`elastic_sync` needs the named axis"):
        tx.update(harness.start(), state, harness.start())
    with pytest.raises(ValueError, match="`elastic_sync` computes updates from"):
        tx.update(harness.start(), state)
