"""Tests of gradients taken away from the parameters, along the residual."""

import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import (
    averaged,
    detached,
    ef_momentum,
    error_feedback,
    exact,
    global_momentum,
    gmc,
    query,
)
from gmc_jax.core import Tree
from tests import problems, references
from tests.identities import (
    CHANNELS,
    MOMENTUM,
    RATE,
    RATES,
    SCHEDULE,
    assert_moves_by,
    buffered,
    problem,
    rate_at,
    telescoped,
)
from tests.problems import residual


def gmc_plus(rate, channel, detach: float, momentum: float = MOMENTUM):
    """Algorithm 2 of the GMC paper, from the pieces that are tested here."""
    inner = detached(error_feedback(channel), detach, rate)
    return optax.chain(
        global_momentum(inner, momentum, rate), optax.scale_by_learning_rate(rate)
    )


def def_(rate, channel, detach: float, momentum: float = MOMENTUM):
    """Detached error feedback, whose residual is in units of steps."""
    return optax.chain(
        optax.trace(momentum),
        optax.scale_by_learning_rate(rate),
        detached(error_feedback(channel), detach),
    )


@pytest.mark.parametrize("detach", [0.5, 1.0])
@pytest.mark.parametrize(
    ("rate", "eta"),
    [(RATE, lambda t: RATE), (SCHEDULE, rate_at)],
    ids=["flat", "cosine"],
)
def test_gmc_plus_is_algorithm_2(rate, eta, detach):
    tx = gmc_plus(rate, CHANNELS["top_k"], detach)
    weights, states = problems.run(tx, problem())
    select = references.largest(0.1)
    expected, residuals = references.gmc(problem(), eta, select, MOMENTUM, detach)
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-10)
    size = np.abs(residuals).max()
    np.testing.assert_allclose(residual(states), residuals, rtol=0, atol=1e-10 * size)


def test_gmc_plus_that_is_not_detached_is_gmc():
    channel = CHANNELS["top_k"]
    ours, _ = problems.run(gmc_plus(SCHEDULE, channel, detach=0), problem())
    theirs, _ = problems.run(gmc(SCHEDULE, channel), problem())
    np.testing.assert_allclose(ours, theirs, rtol=1e-13)


def test_def_that_is_not_detached_is_error_feedback():
    channel = CHANNELS["top_k"]
    ours, _ = problems.run(def_(SCHEDULE, channel, detach=0), problem())
    theirs, _ = problems.run(ef_momentum(SCHEDULE, channel), problem())
    np.testing.assert_allclose(ours, theirs, rtol=1e-13)


@pytest.mark.parametrize("make", [gmc_plus, def_])
def test_without_loss_there_is_nothing_to_move_along(make):
    ours, _ = problems.run(make(RATE, exact(), 0.7), problem())
    sgd = optax.chain(averaged(exact()), optax.sgd(RATE, momentum=MOMENTUM))
    theirs, _ = problems.run(sgd, problem())
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


def test_gmc_plus_without_momentum_is_def_without_momentum():
    """At a constant rate, for a compressor that commutes with scaling."""
    channel = CHANNELS["top_k"]
    ours, _ = problems.run(gmc_plus(RATE, channel, 0.5, momentum=0), problem())
    theirs, _ = problems.run(def_(RATE, channel, 0.5, momentum=0), problem())
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["top_k", "random_block"])
def test_alone_and_fully_detached_def_hides_momentum_sgd(name):
    """w_t - e_t, which is where the gradient is taken, for any compressor."""
    alone = problems.quadratics(workers=1)
    weights, states = problems.run(def_(SCHEDULE, CHANNELS[name], detach=1), alone)
    points = weights + residual(states)[:, 0]
    gradients = [alone.gradient(0, t, points[t]) for t in range(alone.steps)]
    assert_moves_by(points, -RATES * buffered(np.stack(gradients)))


def test_alone_and_fully_detached_gmc_plus_without_momentum_hides_sgd():
    alone = problems.quadratics(workers=1)
    tx = gmc_plus(RATE, CHANNELS["top_k"], detach=1, momentum=0)
    weights, states = problems.run(tx, alone)
    points = weights - RATE * residual(states)[:, 0]
    gradients = [alone.gradient(0, t, points[t]) for t in range(alone.steps)]
    assert_moves_by(points, -RATE * np.stack(gradients))


@pytest.mark.parametrize("name", ["top_k", "random_block"])
def test_z_moves_by_the_mean_of_the_detached_gradients(name):
    weights, states = problems.run(gmc_plus(RATE, CHANNELS[name], 0.5), problem())
    owed = residual(states)
    z = telescoped(weights, RATE * owed.mean(axis=1)) / (1 - MOMENTUM)
    gradients = [
        np.mean(
            [
                problem().gradient(k, t, weights[t] - 0.5 * RATE * owed[t, k])
                for k in range(problem().workers)
            ],
            axis=0,
        )
        for t in range(problem().steps)
    ]
    assert_moves_by(z, -RATE / (1 - MOMENTUM) * np.stack(gradients))


def test_the_state_alone_tells_the_point():
    params = jnp.array([1.0, 2.0])
    tx = optax.chain(optax.identity(), detached(error_feedback(exact()), 0.5, 0.1))
    state: Tree = tx.init(params)
    np.testing.assert_array_equal(query(state, params), params)
    (empty, inner) = state
    owed = inner.inner._replace(residual=jnp.array([10.0, -20.0]))
    state = (empty, inner._replace(inner=owed))
    np.testing.assert_allclose(query(state, params), [0.5, 3.0], rtol=1e-6)


@pytest.mark.parametrize("detach", [-0.1, 1.5, math.nan])
def test_how_far_must_be_a_proportion(detach):
    with pytest.raises(ValueError, match=r"`detach` .* lie in \[0, 1\]"):
        detached(error_feedback(exact()), detach)


@pytest.mark.parametrize(
    "inner",
    [
        averaged(exact()),
        optax.chain(error_feedback(exact()), error_feedback(exact())),
    ],
)
def test_there_must_be_one_residual_to_move_along(inner):
    with pytest.raises(ValueError, match="residual of one `error_feedback`"):
        detached(inner, 0.5).init(jnp.ones(2))
