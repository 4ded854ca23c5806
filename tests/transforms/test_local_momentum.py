"""Tests of each worker's own momentum, accumulated until it is sent."""

import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import all_gather, averaged, error_feedback, exact, local_momentum, top_k
from tests import problems, references
from tests.problems import residual

STEPS, WORKERS, D = 8, 3, 20
GRADIENTS = np.random.default_rng(0).normal(size=(STEPS, WORKERS, D))


@pytest.mark.parametrize("factor_masking", [True, False])
def test_momentum_is_corrected_accumulated_and_masked(factor_masking, float64):
    tx = local_momentum(all_gather(top_k(0.2)), 0.9, factor_masking)
    moved, states = problems.updates(tx, np.zeros(D), GRADIENTS)

    select = references.largest(0.2)
    u, v = np.zeros((WORKERS, D)), np.zeros((WORKERS, D))
    for t in range(STEPS):
        u = 0.9 * u + GRADIENTS[t]
        v = v + u
        mask = np.stack([select(t, mine) for mine in v])
        sent = np.where(mask, v, 0).mean(axis=0)
        v = np.where(mask, 0, v)
        if factor_masking:
            u = np.where(mask, 0, u)
        np.testing.assert_allclose(moved[t], np.tile(sent, (WORKERS, 1)), atol=1e-12)
        np.testing.assert_allclose(states.momentum[t + 1], u, atol=1e-12)
        np.testing.assert_allclose(residual(states)[t + 1], v, atol=1e-12)


def test_without_masking_it_is_error_feedback_behind_a_trace(float64):
    channel = all_gather(top_k(0.2))
    ours, _ = problems.updates(
        local_momentum(channel, 0.9, factor_masking=False), np.zeros(D), GRADIENTS
    )
    parts = optax.chain(optax.trace(0.9), error_feedback(channel))
    theirs, _ = problems.updates(parts, np.zeros(D), GRADIENTS)
    np.testing.assert_allclose(ours, theirs, rtol=1e-13)


@pytest.mark.parametrize("factor_masking", [True, False])
def test_without_loss_masking_removes_the_momentum(factor_masking, float64):
    ours, _ = problems.updates(
        local_momentum(exact(), 0.9, factor_masking), np.zeros(D), GRADIENTS
    )
    plain = averaged(exact())
    dense = plain if factor_masking else optax.chain(plain, optax.trace(0.9))
    theirs, _ = problems.updates(dense, np.zeros(D), GRADIENTS)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


def test_sixteen_bits_remember_in_float32():
    tx = local_momentum(all_gather(top_k(0.2)), 0.9)
    params = jnp.zeros(D, jnp.bfloat16)
    _, states = problems.updates(tx, params, GRADIENTS.astype(jnp.bfloat16))
    assert states.momentum.dtype == np.float32
    assert optax.tree.get(states, "residual").dtype == np.float32
    # Masked where sent, and nowhere else, although messages are rounded.
    assert (states.momentum[1:] == 0).sum() == STEPS * WORKERS * 4


@pytest.mark.parametrize("decay", [1.0, -0.1, math.nan])
def test_the_decay_must_fade(decay):
    with pytest.raises(ValueError, match=r"`decay` .* lie in \[0, 1\)"):
        local_momentum(exact(), decay)
