"""Tests of Algorithm 1: the identities that it obeys."""

import jax
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import all_gather, dense, exact, gmc, top_k
from tests.support import harness, problems, references
from tests.support.harness import residual
from tests.support.virtual_iterates import (
    CHANNELS,
    MOMENTUM,
    RATE,
    RATES,
    SCHEDULE,
    assert_moves_by,
    mean_gradients,
    problem,
    rate_at,
    telescoped,
)


@pytest.mark.parametrize(
    "channel",
    [exact(), all_gather(dense()), all_gather(top_k(1.0))],
    ids=["exact", "dense", "ratio 1"],
)
def test_without_loss_it_is_momentum_sgd(channel):
    ours, states = harness.run(gmc(RATE, channel, momentum=MOMENTUM), problem())
    sgd = optax.chain(gmc_jax.averaged(exact()), optax.sgd(RATE, momentum=MOMENTUM))
    theirs, _ = harness.run(sgd, problem())
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)
    assert not np.any(optax.tree.get(states, "residual")["kernel"])


def test_without_loss_it_is_heavy_ball_under_a_schedule():
    ours, _ = harness.run(gmc(SCHEDULE, exact(), momentum=MOMENTUM), problem())
    theirs = references.heavy_ball(problem(), rate_at, MOMENTUM)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)
    sgd = optax.chain(gmc_jax.averaged(exact()), optax.sgd(SCHEDULE, momentum=MOMENTUM))
    buffered, _ = harness.run(sgd, problem())
    assert np.abs(buffered - theirs).max() > 0.01


def test_without_momentum_it_is_ef_sgd():
    """At a constant rate; the residuals are in gradients here, in steps there."""
    ours, states = harness.run(gmc(RATE, CHANNELS["top_k"], momentum=0), problem())
    theirs, others = harness.run(gmc_jax.ef_sgd(RATE, CHANNELS["top_k"]), problem())
    np.testing.assert_allclose(ours, theirs, rtol=1e-11)
    np.testing.assert_allclose(
        -RATE * residual(states), residual(others), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("name", CHANNELS)
def test_at_a_constant_rate_z_moves_by_the_mean_gradient(name):
    """For any compressor: z_t = (w_t - b w_{t-1} - lr mean e_t) / (1 - b)."""
    tx = gmc(RATE, CHANNELS[name], momentum=MOMENTUM)
    weights, states = harness.run(tx, problem())
    residuals = residual(states).mean(axis=1)

    z = telescoped(weights, RATE * residuals) / (1 - MOMENTUM)

    assert_moves_by(z, -RATE / (1 - MOMENTUM) * mean_gradients(weights))
    assert np.abs(residuals).max() > 1


@pytest.mark.parametrize("name", CHANNELS)
def test_under_a_schedule_the_same_holds_with_each_steps_own_rate(name):
    """On both sides the residual counts with lr_t, so the sum does not telescope."""
    tx = gmc(SCHEDULE, CHANNELS[name], momentum=MOMENTUM)
    weights, states = harness.run(tx, problem())
    residuals = residual(states).mean(axis=1)

    before = telescoped(weights, 0)[:-1] - RATES * residuals[:-1]
    after = telescoped(weights, 0)[1:] - RATES * residuals[1:]

    expected = before - RATES * mean_gradients(weights)
    size = np.abs(weights).max() + RATE * np.abs(residuals).max()
    np.testing.assert_allclose(after, expected, rtol=0, atol=1e-11 * size)


def test_only_coordinates_that_somebody_sent_move():
    tx = gmc(RATE, CHANNELS["top_k"], momentum=MOMENTUM)
    weights, states = harness.run(tx, problem())
    moved = np.diff(weights, axis=0) != 0
    sent = residual(states)[1:] == 0
    assert (sent.sum(axis=2) == 2).all()
    np.testing.assert_array_equal(moved, sent.any(axis=1))


def test_the_momentum_is_what_was_sent_last():
    tx = gmc(SCHEDULE, CHANNELS["top_k"], momentum=MOMENTUM)
    weights, states = harness.run(tx, problem())
    momentum = problems.flat(optax.tree.get(states, "momentum"), leading=1)
    np.testing.assert_allclose(
        momentum[1:], -np.diff(weights, axis=0) / RATES, rtol=1e-6, atol=1e-9
    )


def test_a_residual_a_worker_and_one_shared_vector_are_all_it_keeps():
    tx = gmc(SCHEDULE, CHANNELS["top_k"], momentum=MOMENTUM)
    _, states = harness.run(tx, problem())
    large = [leaf.shape[1:] for leaf in jax.tree.leaves(states) if leaf[0].size >= 4]
    shared, of_each_worker = [(4,), (2, 8)], [(4, 4), (4, 2, 8)]
    assert sorted(large) == sorted(shared + of_each_worker)
