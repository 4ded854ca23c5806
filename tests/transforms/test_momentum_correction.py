"""Tests of each worker's own momentum, which is accumulated until it is sent."""

import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import (
    all_gather,
    averaged,
    error_feedback,
    exact,
    momentum_correction,
    top_k,
)
from tests.support import harness, references
from tests.support.harness import residual

STEPS, WORKERS, D = 8, 3, 20
GRADIENTS = np.random.default_rng(0).normal(size=(STEPS, WORKERS, D))


every_form = pytest.mark.parametrize(
    ("factor_masking", "nesterov"),
    [(True, False), (False, False), (True, True), (False, True)],
)


@every_form
def test_momentum_is_corrected_accumulated_and_masked(
    factor_masking, nesterov, float64
):
    tx = momentum_correction(all_gather(top_k(0.2)), 0.9, factor_masking, nesterov)
    moved, states = harness.updates(tx, np.zeros(D), GRADIENTS)

    select = references.largest(0.2)
    u, v = np.zeros((WORKERS, D)), np.zeros((WORKERS, D))
    for t in range(STEPS):
        g = GRADIENTS[t]
        u = 0.9 * (u + g) if nesterov else 0.9 * u + g
        v = v + u + g if nesterov else v + u
        mask = np.stack([select(t, mine) for mine in v])
        sent = np.where(mask, v, 0).mean(axis=0)
        v = np.where(mask, 0, v)
        if factor_masking:
            u = np.where(mask, 0, u)
        np.testing.assert_allclose(moved[t], np.tile(sent, (WORKERS, 1)), atol=1e-12)
        np.testing.assert_allclose(states.momentum[t + 1], u, atol=1e-12)
        np.testing.assert_allclose(residual(states)[t + 1], v, atol=1e-12)


@pytest.mark.parametrize("nesterov", [False, True])
def test_without_masking_it_is_error_feedback_behind_a_trace(nesterov, float64):
    channel = all_gather(top_k(0.2))
    tx = momentum_correction(channel, 0.9, factor_masking=False, nesterov=nesterov)
    ours, _ = harness.updates(tx, np.zeros(D), GRADIENTS)
    parts = optax.chain(optax.trace(0.9, nesterov), error_feedback(channel))
    theirs, _ = harness.updates(parts, np.zeros(D), GRADIENTS)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


@every_form
def test_through_an_exact_channel_masking_removes_the_momentum(
    factor_masking, nesterov, float64
):
    """Nesterov's momentum adds the current gradient again, which masking keeps."""
    tx = momentum_correction(exact(), 0.9, factor_masking, nesterov)
    ours, _ = harness.updates(tx, np.zeros(D), GRADIENTS)
    masked = optax.scale(1.9 if nesterov else 1.0)
    behind = masked if factor_masking else optax.trace(0.9, nesterov)
    dense = optax.chain(averaged(exact()), behind)
    theirs, _ = harness.updates(dense, np.zeros(D), GRADIENTS)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


def test_its_state_is_float32_for_16_bits():
    tx = momentum_correction(all_gather(top_k(0.2)), 0.7)
    params = jnp.zeros(D, jnp.bfloat16)
    _, states = harness.updates(tx, params, GRADIENTS.astype(jnp.bfloat16))
    assert states.momentum.dtype == np.float32
    assert optax.tree.get(states, "residual").dtype == np.float32
    # Masked where sent, and nowhere else, although messages are rounded.
    assert (states.momentum[1:] == 0).sum() == STEPS * WORKERS * 4


@pytest.mark.parametrize("decay", [1.0, -0.1, math.nan])
def test_the_decay_must_fade(decay):
    with pytest.raises(ValueError, match=r"`decay` must be in \[0, 1\)"):
        momentum_correction(exact(), decay)
