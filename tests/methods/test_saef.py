"""Tests of step-ahead error feedback, with and without error averaging."""

import functools

import jax
import numpy as np
import pytest

from gmc_jax import all_gather, def_sgd, dmsgd, exact, saef, top_k
from gmc_jax.core import Tree
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
    mean_gradients,
    problem,
)

PERIOD = 7


@functools.cache
def trained(name: str, period: int):
    """Weights, [steps + 1, d], and the states of all steps."""
    tx = saef(SCHEDULE, CHANNELS[name], momentum=MOMENTUM, period=period)
    return harness.run(tx, problem())


def test_without_a_period_it_is_def_that_is_fully_detached():
    channel = CHANNELS["top_k"]
    ours, states = harness.run(saef(SCHEDULE, channel), problem())
    theirs, others = harness.run(def_sgd(SCHEDULE, channel, detach=1), problem())
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(residual(states), residual(others))


def test_without_loss_it_is_dmsgd():
    ours, _ = harness.run(saef(SCHEDULE, exact(), period=PERIOD), problem())
    theirs, _ = harness.run(dmsgd(SCHEDULE, exact()), problem())
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", CHANNELS)
def test_less_the_residuals_it_moves_by_the_mean_of_the_momenta(name):
    """w_t - mean e_t, our residual being -e; averaging leaves the mean as it is."""
    weights, states = trained(name, PERIOD)
    momenta = residual(states, "trace")[1:]
    paid = weights + residual(states).mean(axis=1)
    assert_moves_by(paid, -RATES * momenta.mean(axis=1))
    assert np.abs(paid - weights).max() > 0.01


def test_residuals_are_the_same_after_every_period_and_differ_in_between():
    _, states = trained("top_k", PERIOD)
    spread = np.ptp(residual(states), axis=1).max(axis=1)
    due = np.arange(problem().steps + 1) % PERIOD == 0
    assert not spread[due].any()
    assert spread[~due].all()
    assert np.abs(residual(states)[PERIOD]).max() > 0.01


@pytest.mark.parametrize("name", CHANNELS)
def test_where_residuals_are_always_averaged_it_hides_momentum_sgd(name):
    """w_t - mean e_t, which is where all workers take their gradients."""
    weights, states = trained(name, period=1)
    points = weights + residual(states)[:, 0]
    assert_moves_by(points, -RATES * buffered(mean_gradients(points)))


def test_alone_it_hides_momentum_sgd():
    alone = problems.quadratics(workers=1)
    tx = saef(SCHEDULE, CHANNELS["unruly"], momentum=MOMENTUM, period=PERIOD)
    weights, states = harness.run(tx, alone)
    points = weights + residual(states)[:, 0]
    gradients = [alone.gradient(0, t, points[t]) for t in range(alone.steps)]
    assert_moves_by(points, -RATES * buffered(np.stack(gradients)))


def test_residuals_are_averaged_over_the_axis_of_the_channel():
    tx = saef(RATE, all_gather(top_k(0.2), axis_name="replicas"), period=1)
    params, gradients = np.zeros(10), np.random.default_rng(0).normal(size=(3, 10))
    step = jax.vmap(
        lambda g: tx.update(g, tx.init(params), params)[1], axis_name="replicas"
    )
    state: Tree = jax.jit(step)(gradients)
    residuals = state[-1].inner.inner.residual
    np.testing.assert_array_equal(residuals[1:], residuals[:-1])


@pytest.mark.parametrize("period", [0, -1, 1.5])
def test_a_period_must_be_a_whole_number(period):
    with pytest.raises(ValueError, match=r"`period` .* whole number of at least 1"):
        saef(RATE, exact(), period=period)
