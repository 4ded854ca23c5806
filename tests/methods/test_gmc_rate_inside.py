"""Tests of Algorithm 4: the learning rate is inside the residual."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import exact, gmc, gmc_rate_inside
from tests.support import harness, references
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


def both(rate: optax.ScalarOrSchedule):
    """The weights and residuals of Algorithms 4 and 1 (our residual 4 is negative)."""
    channel = CHANNELS["top_k"]
    fourth, inside = harness.run(gmc_rate_inside(rate, channel), problem())
    first, outside = harness.run(gmc(rate, channel), problem())
    return fourth, -residual(inside), first, residual(outside)


def test_at_a_constant_rate_it_is_algorithm_1():
    fourth, inside, first, outside = both(RATE)
    np.testing.assert_allclose(fourth, first, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(inside, RATE * outside, rtol=1e-8, atol=1e-12)


def test_under_a_schedule_it_is_not():
    fourth, _, first, _ = both(SCHEDULE)
    assert np.abs(fourth - first).max() > 0.1


def test_without_loss_it_is_heavy_ball_under_a_schedule():
    ours, _ = harness.run(gmc_rate_inside(SCHEDULE, exact()), problem())
    theirs = references.heavy_ball(problem(), rate_at, MOMENTUM)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", CHANNELS)
def test_z_moves_by_the_mean_gradient_under_any_schedule(name):
    """z_t = (w_t - b w_{t-1} - mean e_t) / (1 - b), for any compressor."""
    tx = gmc_rate_inside(SCHEDULE, CHANNELS[name])
    weights, states = harness.run(tx, problem())
    z = telescoped(weights, -residual(states).mean(axis=1)) / (1 - MOMENTUM)
    steps = -RATES / (1 - MOMENTUM) * mean_gradients(weights)
    assert_moves_by(z, steps)


def test_algorithm_1_does_not_telescope_under_a_schedule():
    """Which tells the two apart: its residual counts with another rate each step."""
    weights, states = harness.run(gmc(SCHEDULE, CHANNELS["top_k"]), problem())
    residuals = np.append(RATES, [[0]], axis=0) * residual(states).mean(axis=1)
    z = telescoped(weights, residuals) / (1 - MOMENTUM)
    steps = -RATES / (1 - MOMENTUM) * mean_gradients(weights)
    assert np.abs(np.diff(z, axis=0) - steps).max() > 0.01


def test_no_part_of_a_small_16_bit_gradient_is_lost():
    """The rate times the gradient is 0 in float16."""
    tx = gmc_jax.gmc_rate_inside(
        1e-3, gmc_jax.all_gather(gmc_jax.top_k(0.5)), momentum=0.0
    )
    gradients = np.full((50, 2, 4), 1e-5, np.float16)
    moved, states = harness.updates(tx, jnp.zeros(4, jnp.float16), gradients)
    residuals = harness.residual(states)[-1].mean(axis=0)
    total = np.asarray(moved, np.float64).mean(axis=1).sum(axis=0) + residuals
    np.testing.assert_allclose(total, -50e-3 * np.float64(gradients[0, 0]), rtol=1e-4)
