"""Tests of Algorithm 2: the identities that it obeys, and one that it does not."""

import functools
import math

import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax import def_sgd, exact, gmc, gmc_plus
from tests.support import harness, problems, references
from tests.support.harness import residual
from tests.support.virtual_iterates import (
    CHANNELS,
    MOMENTUM,
    RATE,
    SCHEDULE,
    assert_moves_by,
    buffered,
    problem,
    rate_at,
    telescoped,
)

DETACH = 0.5


@functools.cache
def alone() -> problems.Problem:
    return problems.quadratics(workers=1)


def test_without_detaching_it_is_gmc():
    channel = CHANNELS["top_k"]
    ours, states = harness.run(gmc_plus(SCHEDULE, channel, detach=0), problem())
    theirs, others = harness.run(gmc(SCHEDULE, channel), problem())
    np.testing.assert_allclose(ours, theirs, rtol=1e-13)
    np.testing.assert_allclose(residual(states), residual(others), rtol=1e-9)


@pytest.mark.parametrize(
    ("detach", "rate", "eta"),
    [(0.3, SCHEDULE, rate_at), (1.0, SCHEDULE, rate_at), (1.0, RATE, lambda t: RATE)],
    ids=["detached in part, cosine", "cosine", "constant"],
)
def test_without_loss_it_is_heavy_ball(detach, rate, eta):
    """As `gmc` is; at a constant rate that is momentum SGD on the mean gradient."""
    ours, _ = harness.run(gmc_plus(rate, exact(), detach=detach), problem())
    theirs = references.heavy_ball(problem(), eta, MOMENTUM)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", CHANNELS)
def test_at_a_constant_rate_z_moves_by_the_mean_of_the_detached_gradients(name):
    """For any compressor: z_t = (w_t - b w_{t-1} - lr mean e_t) / (1 - b)."""
    tx = gmc_plus(RATE, CHANNELS[name], momentum=MOMENTUM, detach=DETACH)
    weights, states = harness.run(tx, problem())
    residuals = residual(states)
    points = weights[:, None] - DETACH * RATE * residuals

    z = telescoped(weights, RATE * residuals.mean(axis=1)) / (1 - MOMENTUM)

    gradients = [
        [problem().gradient(k, t, points[t, k]) for k in range(problem().workers)]
        for t in range(problem().steps)
    ]
    assert_moves_by(z, -RATE / (1 - MOMENTUM) * np.mean(gradients, axis=1))
    assert np.abs(points - weights[:, None]).max() > 0.01


@pytest.mark.parametrize("name", ["top_k", "unruly"])
def test_alone_without_momentum_and_fully_detached_it_hides_sgd(name):
    """w_t - lr e_t, which is where the gradient is taken, for any compressor."""
    tx = gmc_plus(RATE, CHANNELS[name], momentum=0, detach=1)
    weights, states = harness.run(tx, alone())
    points = weights - RATE * residual(states)[:, 0]
    assert_moves_by(points, -RATE * gradients_alone(points))
    assert np.abs(points - weights).max() > 0.01


def test_alone_with_momentum_it_hides_no_momentum_sgd():
    """Since the momentum is made of the steps of w, and not of w - lr e."""
    tx = gmc_plus(RATE, CHANNELS["top_k"], momentum=MOMENTUM, detach=1)
    weights, states = harness.run(tx, alone())
    points = weights - RATE * residual(states)[:, 0]
    steps = -RATE * buffered(gradients_alone(points))
    assert np.abs(np.diff(points, axis=0) - steps).max() > 0.01


def gradients_alone(points: np.ndarray) -> np.ndarray:
    return np.stack([alone().gradient(0, t, points[t]) for t in range(alone().steps)])


def test_without_momentum_it_is_def_sgd():
    """At a constant rate; the residuals are in gradients here, in steps there."""
    options = {"momentum": 0, "detach": DETACH}
    channel = CHANNELS["top_k"]
    ours, states = harness.run(gmc_plus(RATE, channel, **options), problem())
    theirs, others = harness.run(def_sgd(RATE, channel, **options), problem())
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(
        -RATE * residual(states), residual(others), rtol=1e-9, atol=1e-11
    )


@pytest.mark.parametrize("detach", [-0.1, 1.5, math.nan])
def test_how_far_must_be_a_proportion(detach):
    with pytest.raises(ValueError, match=r"`detach` must be in \[0, 1\]"):
        gmc_plus(RATE, exact(), detach=detach)


@pytest.mark.parametrize("method", [gmc, gmc_plus])
def test_after_a_warm_restart_a_step_is_large(method):
    """What is left of the momentum at a small rate is sent at the large one."""

    def rate(step):
        return jnp.where((step >= 20) & (step < 25), RATE / 100, RATE)

    weights, _ = harness.run(method(rate, CHANNELS["top_k"]), problem())
    moved = np.linalg.norm(np.diff(weights, axis=0), axis=1)
    assert moved[25:30].max() > 5 * moved[15:20].max()
