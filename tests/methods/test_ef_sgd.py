"""Tests of error feedback without momentum."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import averaged, ef_sgd, exact
from tests.support import harness
from tests.support.harness import residual
from tests.support.virtual_iterates import (
    CHANNELS,
    RATE,
    RATES,
    SCHEDULE,
    assert_moves_by,
    mean_gradients,
    problem,
)


@pytest.mark.parametrize("name", CHANNELS)
def test_less_the_residuals_it_is_sgd(name):
    """w_t - mean e_t, for any compressor and schedule; our residual is -e."""
    weights, states = harness.run(ef_sgd(SCHEDULE, CHANNELS[name]), problem())
    paid = weights + residual(states).mean(axis=1)
    steps = -RATES * mean_gradients(weights)
    assert_moves_by(paid, steps)
    assert np.abs(residual(states)).max() > 0.01


def test_without_loss_it_is_sgd():
    ours, _ = harness.run(ef_sgd(RATE, exact()), problem())
    sgd = optax.chain(averaged(exact()), optax.sgd(RATE))
    theirs, _ = harness.run(sgd, problem())
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_no_part_of_a_small_16_bit_gradient_is_lost():
    """The rate times the gradient is 0 in float16."""
    tx = gmc_jax.ef_sgd(1e-3, gmc_jax.all_gather(gmc_jax.top_k(0.5)))
    gradients = np.full((50, 2, 4), 1e-5, np.float16)
    moved, states = harness.updates(tx, jnp.zeros(4, jnp.float16), gradients)
    residuals = harness.residual(states)[-1].mean(axis=0)
    total = np.asarray(moved, np.float64).mean(axis=1).sum(axis=0) + residuals
    np.testing.assert_allclose(total, -50e-3 * np.float64(gradients[0, 0]), rtol=1e-4)
