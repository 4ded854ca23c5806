"""Tests of gradients taken away from the parameters, along the residual."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import averaged, detached, error_feedback, exact, query
from gmc_jax.core import Tree
from tests.support import harness
from tests.support.virtual_iterates import CHANNELS

STEPS, WORKERS, D = 4, 3, 20
GRADIENTS = np.random.default_rng(0).normal(size=(STEPS, WORKERS, D))


def test_updates_and_residuals_are_those_of_the_inner_transformation(float64):
    channel = CHANNELS["top_k"]
    tx = detached(error_feedback(channel), 0.5, 0.1)
    ours, states = harness.updates(tx, np.zeros(D), GRADIENTS)
    theirs, inner = harness.updates(error_feedback(channel), np.zeros(D), GRADIENTS)
    np.testing.assert_array_equal(ours, theirs)
    jax.tree.map(np.testing.assert_array_equal, states.inner, inner)


def with_residual(tx: optax.GradientTransformation, residual: jax.Array) -> Tree:
    """The state of a transformation with a residual."""
    state: Tree = tx.init(jnp.zeros_like(residual))
    return state._replace(inner=state.inner._replace(residual=residual))


PARAMS, RESIDUAL = jnp.array([1.0, 2.0]), jnp.array([10.0, -20.0])


@pytest.mark.parametrize(
    ("options", "point"),
    [
        ((0.5, 0.1), [0.5, 3.0]),
        ((0.5, lambda step: 0.1 + step), [0.5, 3.0]),
        ((1.0, 0.1), [0.0, 4.0]),
        ((0.0, 0.1), [1.0, 2.0]),
        ((0.5, 0.0), [1.0, 2.0]),
        ((0.5,), [6.0, -8.0]),
        ((0.0,), [1.0, 2.0]),
    ],
)
def test_the_point_follows_from_the_state_alone(options, point):
    """With a rate the residual is a gradient's; without, it is signed as updates."""
    tx = detached(error_feedback(exact()), *options)
    np.testing.assert_allclose(
        query(with_residual(tx, RESIDUAL), PARAMS), point, rtol=1e-6
    )


def test_the_rate_is_that_of_the_step_that_uses_the_gradient():
    tx = detached(error_feedback(exact()), 0.5, lambda step: 0.1 * (step + 1))
    _, states = harness.updates(tx, np.zeros(D, np.float32), np.float32(GRADIENTS))
    np.testing.assert_allclose(states.scale, -0.05 * np.arange(1, 6), rtol=1e-6)


def test_each_worker_has_a_point_of_its_own(float64):
    tx = detached(error_feedback(CHANNELS["top_k"]), 0.5, 0.1)
    _, states = harness.updates(tx, np.zeros(D), GRADIENTS)
    last: Tree = jax.tree.map(lambda leaf: leaf[-1], states)
    for k in range(WORKERS):
        own = last._replace(inner=last.inner._replace(residual=last.inner.residual[k]))
        point = query(own, np.ones(D))
        np.testing.assert_allclose(point, 1 - 0.05 * own.inner.residual, rtol=1e-12)
    assert np.ptp(last.inner.residual, axis=0).max() > 0.1


@pytest.mark.parametrize("detach", [-0.1, 1.5, math.nan])
def test_detach_must_be_a_proportion(detach):
    with pytest.raises(ValueError, match=r"`detach` must be in \[0, 1\]"):
        detached(error_feedback(exact()), detach)


@pytest.mark.parametrize("rate", [-0.1, math.nan])
def test_a_rate_is_finite_and_not_negative(rate):
    with pytest.raises(ValueError, match="`learning_rate` must be finite"):
        detached(error_feedback(exact()), 0.5, rate)


@pytest.mark.parametrize(
    "inner",
    [
        averaged(exact()),
        optax.chain(error_feedback(exact()), error_feedback(exact())),
    ],
    ids=["none", "two"],
)
def test_there_must_be_one_residual_to_move_along(inner):
    with pytest.raises(ValueError, match="`detached` must contain one `error_"):
        detached(inner, 0.5).init(jnp.ones(2))
