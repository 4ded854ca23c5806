"""Tests of detached error feedback: its identities, and where weights decay."""

import functools
import math

import numpy as np
import optax
import pytest

from gmc_jax import def_sgd, dmsgd, ef_momentum, exact, query
from tests.support import harness, problems
from tests.support.harness import residual
from tests.support.virtual_iterates import (
    CHANNELS,
    MOMENTUM,
    RATE,
    RATES,
    SCHEDULE,
    assert_moves_by,
    buffered,
    problem,
)

DETACH = 0.3


@functools.cache
def alone() -> problems.Problem:
    return problems.quadratics(workers=1)


def test_without_detaching_it_is_error_feedback_behind_local_momentum():
    channel = CHANNELS["top_k"]
    ours, states = harness.run(def_sgd(SCHEDULE, channel, detach=0), problem())
    theirs, others = harness.run(ef_momentum(SCHEDULE, channel), problem())
    np.testing.assert_allclose(ours, theirs, rtol=1e-13)
    np.testing.assert_allclose(residual(states), residual(others), rtol=1e-9)


@pytest.mark.parametrize("detach", [0.3, 1.0])
def test_without_loss_it_is_dmsgd(detach):
    ours, _ = harness.run(def_sgd(SCHEDULE, exact(), detach=detach), problem())
    theirs, _ = harness.run(dmsgd(SCHEDULE, exact()), problem())
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", CHANNELS)
def test_less_the_residuals_it_moves_by_the_mean_of_the_momenta(name):
    """w_t - mean e_t; our residual is -e."""
    tx = def_sgd(SCHEDULE, CHANNELS[name], momentum=MOMENTUM, detach=DETACH)
    weights, states = harness.run(tx, problem())
    residuals, momenta = residual(states), residual(states, "trace")[1:]
    assert_moves_by(weights + residuals.mean(axis=1), -RATES * momenta.mean(axis=1))
    points = weights[:, None] + DETACH * residuals
    np.testing.assert_allclose(momenta, momenta_at(points), rtol=0, atol=1e-9)
    assert np.abs(residuals).max() > 0.01


def momenta_at(points: np.ndarray) -> np.ndarray:
    """All workers' own momenta of gradients at [steps + 1, workers, d]."""
    gradients = [
        [problem().gradient(k, t, points[t, k]) for k in range(problem().workers)]
        for t in range(problem().steps)
    ]
    return buffered(np.stack(gradients))


@pytest.mark.parametrize("name", ["top_k", "unruly"])
def test_alone_and_fully_detached_it_hides_momentum_sgd(name):
    """w_t - e_t, which is where the gradient is taken, under any schedule."""
    tx = def_sgd(SCHEDULE, CHANNELS[name], momentum=MOMENTUM, detach=1)
    weights, states = harness.run(tx, alone())
    points = weights + residual(states)[:, 0]
    gradients = [alone().gradient(0, t, points[t]) for t in range(alone().steps)]
    assert_moves_by(points, -RATES * buffered(np.stack(gradients)))
    assert np.abs(points - weights).max() > 0.01


DECAY = 0.1


def decayed() -> problems.Problem:
    """The problem with DECAY / 2 times the squared norm in every worker's loss."""
    return problem()._replace(
        hessians=problem().hessians + DECAY * np.eye(problem().start.size),
        noise=problem().noise + DECAY * problem().targets,
    )


def updated_at_the_point(
    tx: optax.GradientTransformation,
) -> optax.GradientTransformation:
    """The same, where the loop's `tx.update` is given the point of the gradient."""

    def update(updates, state, params=None):
        return tx.update(updates, state, query(state, params))

    return optax.GradientTransformation(tx.init, update)


def with_decay() -> optax.GradientTransformation:
    method = def_sgd(RATE, CHANNELS["top_k"], detach=DETACH)
    return optax.chain(optax.add_decayed_weights(DECAY), method)


def test_weights_that_decay_where_the_gradient_is_taken():
    """Through the loss, or by giving `update` what `query` returned."""
    in_the_loss, _ = harness.run(
        def_sgd(RATE, CHANNELS["top_k"], detach=DETACH), decayed()
    )
    in_the_chain, _ = harness.run(updated_at_the_point(with_decay()), problem())
    np.testing.assert_allclose(in_the_chain, in_the_loss, rtol=1e-9, atol=1e-11)


def test_weights_that_decay_at_the_parameters():
    """As they do in the loop that everybody writes."""
    weights, states = harness.run(with_decay(), problem())
    points = weights[:, None] + DETACH * residual(states)
    surplus = residual(states, "trace")[1:] - momenta_at(points)
    at_the_parameters = DECAY * buffered(weights[:-1])
    size = np.abs(at_the_parameters).max()
    for k in range(problem().workers):
        np.testing.assert_allclose(
            surplus[:, k], at_the_parameters, rtol=0, atol=1e-11 * size
        )
    at_the_points = DECAY * buffered(points[:-1])
    assert np.abs(surplus - at_the_points).max() > 1e-3 * size


@pytest.mark.parametrize("detach", [-0.1, 1.5, math.nan])
def test_how_far_must_be_a_proportion(detach):
    with pytest.raises(ValueError, match=r"`detach` must be in \[0, 1\]"):
        def_sgd(RATE, exact(), detach=detach)
