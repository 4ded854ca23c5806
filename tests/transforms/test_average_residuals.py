"""Tests of residuals that are replaced periodically by their mean over workers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import (
    all_gather,
    average_residuals,
    averaged,
    detached,
    error_feedback,
    exact,
    top_k,
)
from tests.support import harness, references
from tests.support.harness import WORKERS, residual, start, step_of, targets

PERIOD, STEPS, D = 3, 8, 20
GRADIENTS = np.random.default_rng(0).normal(size=(STEPS, WORKERS, D))
CHANNEL = all_gather(top_k(0.2))


def test_residuals_become_their_mean_after_every_period(float64):
    tx = average_residuals(error_feedback(CHANNEL), PERIOD)
    moved, states = harness.updates(tx, np.zeros(D), GRADIENTS)

    select = references.largest(0.2)
    residuals = np.zeros((WORKERS, D))
    for t in range(STEPS):
        residuals = residuals + GRADIENTS[t]
        mask = np.stack([select(t, mine) for mine in residuals])
        sent = np.where(mask, residuals, 0).mean(axis=0)
        residuals = np.where(mask, 0, residuals)
        if t in (2, 5):
            residuals = np.tile(residuals.mean(axis=0), (WORKERS, 1))
        np.testing.assert_allclose(moved[t], np.tile(sent, (WORKERS, 1)), atol=1e-13)
        np.testing.assert_allclose(
            residual([states.inner])[t + 1], residuals, atol=1e-13
        )


def test_no_part_of_any_update_is_lost(float64):
    tx = average_residuals(error_feedback(CHANNEL), PERIOD)
    moved, states = harness.updates(tx, np.zeros(D), GRADIENTS)
    residuals = residual([states.inner])[-1].mean(axis=0)
    came_in = GRADIENTS.mean(axis=1).sum(axis=0)
    np.testing.assert_allclose(moved[:, 0].sum(axis=0) + residuals, came_in, atol=1e-12)


def test_the_steps_in_between_send_nothing_for_it():
    """The dense average is a branch of a conditional in the compiled program."""
    tx = average_residuals(detached(error_feedback(CHANNEL), 1), PERIOD)
    batch = jax.tree.map(lambda x: x[0], targets(start(), 1))
    state = start(), tx.init(start())
    train, state = gmc_jax.distribute(step_of(tx), state, batch)
    sent = gmc_jax.wire_bytes(train, state, batch)
    assert sent.always == gmc_jax.message_bits(CHANNEL, start()) // 8
    assert sent - sent.always == gmc_jax.message_bits(exact(), start()) // 8
    state, _ = train(state, batch)
    own = optax.tree.get(state[1], "residual")
    assert {leaf.shape[0] for leaf in jax.tree.leaves(own)} == {WORKERS}


def test_residuals_of_16_bit_trees_are_averaged_in_float32():
    tx = average_residuals(error_feedback(CHANNEL), 1)
    params = jnp.zeros(D, jnp.bfloat16)
    _, states = harness.updates(tx, params, GRADIENTS.astype(jnp.bfloat16))
    residuals = states.inner.residual
    assert residuals.dtype == np.float32
    assert not np.ptp(residuals[1:], axis=1).any()
    assert residuals[1:].any()


def test_masked_leaves_stay_masked():
    inner = optax.masked(error_feedback(CHANNEL), {"bias": False, "kernel": True})
    tx = average_residuals(inner, 1)
    _, states = harness.updates(tx, start(), targets(start(), 2))
    residuals = states.inner.inner_state.residual
    assert residuals["bias"] == optax.MaskedNode()
    assert not np.ptp(residuals["kernel"][1:], axis=1).any()


@pytest.mark.parametrize("period", [0, -1, 1.5])
def test_a_period_must_be_a_whole_number(period):
    with pytest.raises(ValueError, match=r"`period` .* whole number of at least 1"):
        average_residuals(error_feedback(exact()), period)


@pytest.mark.parametrize(
    "inner",
    [
        averaged(exact()),
        optax.chain(error_feedback(exact()), error_feedback(exact())),
    ],
    ids=["none", "two"],
)
def test_there_must_be_one_residual_to_average(inner):
    message = "`average_residuals` must contain one `error_feedback`"
    with pytest.raises(ValueError, match=message):
        average_residuals(inner, 2).init(jnp.ones(2))


def test_outside_the_axis_the_error_says_how_to_get_inside():
    tx = average_residuals(error_feedback(exact()), 2)
    params = jnp.ones(2)
    with pytest.raises(NameError, match=r"'workers'.*`gmc_jax.simulate`"):
        tx.update(params, tx.init(params), params)
