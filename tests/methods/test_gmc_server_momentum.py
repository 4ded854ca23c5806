"""Tests of Algorithm 3: the momentum is the server's."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax import exact, gmc, gmc_server_momentum
from tests.support import harness, references
from tests.support.harness import residual
from tests.support.virtual_iterates import (
    CHANNELS,
    MOMENTUM,
    RATE,
    SCHEDULE,
    assert_moves_by,
    mean_gradients,
    problem,
    rate_at,
    telescoped,
)


@functools.cache
def server(name: str):
    tx = gmc_server_momentum(RATE, CHANNELS[name], momentum=MOMENTUM)
    weights, states = harness.run(tx, problem())
    return weights, residual(states)


@pytest.mark.parametrize("name", CHANNELS)
def test_z_moves_by_the_mean_gradient(name):
    """Word for word as for GMC."""
    weights, residuals = server(name)
    z = telescoped(weights, RATE * residuals.mean(axis=1)) / (1 - MOMENTUM)
    steps = -RATE / (1 - MOMENTUM) * mean_gradients(weights)
    assert_moves_by(z, steps)


def test_the_residual_differs_from_that_of_gmc():
    _, residuals = server("top_k")
    _, states = harness.run(gmc(RATE, CHANNELS["top_k"], momentum=MOMENTUM), problem())
    assert np.abs(residuals - residual(states)).max() > 1


def test_its_step_is_not_sparse():
    weights, residuals = server("top_k")
    moved = np.diff(weights, axis=0) != 0
    sent = (residuals[1:] == 0).any(axis=1)
    assert moved[sent].all()
    assert (moved & ~sent)[10:].sum() > 100


def test_without_loss_it_is_heavy_ball_under_a_schedule():
    tx = gmc_server_momentum(SCHEDULE, exact(), momentum=MOMENTUM)
    ours, _ = harness.run(tx, problem())
    theirs = references.heavy_ball(problem(), rate_at, MOMENTUM)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


def test_without_momentum_it_is_gmc_without_momentum():
    ours, states = harness.run(
        gmc_server_momentum(SCHEDULE, CHANNELS["top_k"], momentum=0), problem()
    )
    theirs, others = harness.run(
        gmc(SCHEDULE, CHANNELS["top_k"], momentum=0), problem()
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    np.testing.assert_allclose(residual(states), residual(others), rtol=1e-12)


def test_at_a_rate_of_0_it_coasts_as_its_equation_does():
    """The momentum is of steps: what divides by the rate stands still and restarts."""

    def rate(step):
        return jnp.where((step >= 5) & (step < 8), 0.0, RATE)

    ours, _ = harness.run(
        gmc_server_momentum(rate, CHANNELS["top_k"], momentum=MOMENTUM), problem()
    )
    moved = np.diff(ours, axis=0)
    np.testing.assert_allclose(moved[5:8], MOMENTUM * moved[4:7], rtol=1e-9)
