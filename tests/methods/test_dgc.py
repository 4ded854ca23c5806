"""Tests of deep gradient compression, with and without factor masking and Nesterov."""

import functools

import numpy as np
import optax
import pytest

from gmc_jax import all_gather, averaged, dgc, ef_momentum, exact, top_k
from tests.support import harness
from tests.support.harness import residual
from tests.support.virtual_iterates import (
    CHANNELS,
    MOMENTUM,
    RATE,
    SCHEDULE,
    assert_moves_by,
    buffered,
    mean_gradients,
    problem,
)

every_momentum = pytest.mark.parametrize("nesterov", [False, True])


@functools.cache
def trained(name: str, factor_masking: bool, nesterov: bool):
    """Weights, mean v and mean u, each [steps + 1, d]."""
    tx = dgc(RATE, CHANNELS[name], factor_masking=factor_masking, nesterov=nesterov)
    weights, states = harness.run(tx, problem())
    v = residual(states).mean(axis=1)
    return weights, v, residual(states, "momentum").mean(axis=1)


@pytest.mark.parametrize(
    ("channel", "nesterov"),
    [(exact(), False), (all_gather(top_k(1.0)), False), (exact(), True)],
)
def test_without_loss_masking_removes_the_momentum(channel, nesterov):
    """Nesterov's counts the present gradient once more, and that is not removed."""
    tx = dgc(SCHEDULE, channel, momentum=MOMENTUM, nesterov=nesterov)
    ours, _ = harness.run(tx, problem())
    twice = optax.scale(1 + MOMENTUM if nesterov else 1)
    sgd = optax.chain(averaged(exact()), twice, optax.sgd(SCHEDULE))
    theirs, _ = harness.run(sgd, problem())
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("channel", "nesterov"),
    [(exact(), False), (all_gather(top_k(1.0)), False), (exact(), True)],
)
def test_without_loss_and_masking_it_is_momentum_sgd(channel, nesterov):
    options = {"momentum": MOMENTUM, "nesterov": nesterov}
    tx = dgc(SCHEDULE, channel, factor_masking=False, **options)
    ours, _ = harness.run(tx, problem())
    sgd = optax.chain(averaged(exact()), optax.sgd(SCHEDULE, **options))
    theirs, _ = harness.run(sgd, problem())
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", CHANNELS)
@every_momentum
def test_without_masking_w_less_the_residuals_is_momentum_sgd(name, nesterov):
    """y_t = w_t - lr mean v_t, the gradients taken at w_t."""
    weights, v, _ = trained(name, factor_masking=False, nesterov=nesterov)
    gradients = mean_gradients(weights)
    momenta = buffered(gradients)
    if nesterov:
        momenta = gradients + MOMENTUM * momenta
    assert_moves_by(weights - RATE * v, -RATE * momenta)


@pytest.mark.parametrize("name", CHANNELS)
@every_momentum
def test_without_masking_it_telescopes(name, nesterov):
    """w_t - lr mean v_t - lr b / (1 - b) mean u_t, with the step lr / (1 - b)."""
    weights, v, u = trained(name, factor_masking=False, nesterov=nesterov)
    z = weights - RATE * v - RATE * MOMENTUM / (1 - MOMENTUM) * u
    steps = -RATE / (1 - MOMENTUM) * mean_gradients(weights)
    assert_moves_by(z, steps)


@every_momentum
def test_with_masking_w_less_the_residuals_moves_by_what_was_added_to_it(nesterov):
    """y_{t+1} = y_t - lr mean u_t, u_t = b u_{t-1} + g_t, or u_t + g_t with Nesterov.

    Here u_{t-1} has been through the mask, and u_t not yet.
    """
    weights, v, u = trained("top_k", factor_masking=True, nesterov=nesterov)
    gradients = mean_gradients(weights)
    added = MOMENTUM * u[:-1] + gradients
    if nesterov:
        added = MOMENTUM * (u[:-1] + gradients) + gradients
    assert_moves_by(weights - RATE * v, -RATE * added)


@every_momentum
@pytest.mark.parametrize("factor_masking", [True, False])
def test_masking_clears_the_momentum_where_something_was_sent(factor_masking, nesterov):
    tx = dgc(RATE, CHANNELS["top_k"], factor_masking=factor_masking, nesterov=nesterov)
    _, states = harness.run(tx, problem())
    sent = residual(states)[1:] == 0
    momentum = residual(states, "momentum")[1:]
    assert np.any(momentum[sent]) != factor_masking
    assert momentum[~sent].all()


def test_without_masking_it_is_error_feedback_behind_local_momentum():
    """At a constant rate, for a compressor that commutes with scaling."""
    weights, _, _ = trained("top_k", factor_masking=False, nesterov=False)
    theirs, _ = harness.run(ef_momentum(RATE, CHANNELS["top_k"]), problem())
    np.testing.assert_allclose(weights, theirs, rtol=1e-10)
