"""Tests of deep gradient compression, with and without factor masking."""

import functools

import numpy as np
import optax
import pytest

from gmc_jax import all_gather, averaged, dgc, ef_momentum, exact, top_k
from tests import problems
from tests.identities import (
    CHANNELS,
    MOMENTUM,
    RATE,
    SCHEDULE,
    assert_moves_by,
    buffered,
    mean_gradients,
    problem,
)
from tests.problems import residual


@functools.cache
def trained(name: str, factor_masking: bool):
    """Weights, mean v and mean u, each [steps + 1, d]."""
    tx = dgc(RATE, CHANNELS[name], factor_masking=factor_masking)
    weights, states = problems.run(tx, problem())
    v = residual(states).mean(axis=1)
    return weights, v, residual(states, "momentum").mean(axis=1)


@pytest.mark.parametrize("channel", [exact(), all_gather(top_k(1.0))])
def test_without_loss_masking_removes_the_momentum(channel):
    ours, _ = problems.run(dgc(SCHEDULE, channel), problem())
    sgd = optax.chain(averaged(exact()), optax.sgd(SCHEDULE))
    theirs, _ = problems.run(sgd, problem())
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@pytest.mark.parametrize("channel", [exact(), all_gather(top_k(1.0))])
def test_without_loss_and_masking_it_is_momentum_sgd(channel):
    tx = dgc(SCHEDULE, channel, momentum=MOMENTUM, factor_masking=False)
    ours, _ = problems.run(tx, problem())
    sgd = optax.chain(averaged(exact()), optax.sgd(SCHEDULE, momentum=MOMENTUM))
    theirs, _ = problems.run(sgd, problem())
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", CHANNELS)
def test_without_masking_w_less_what_is_owed_is_momentum_sgd(name):
    """y_t = w_t - lr mean v_t, the gradients taken at w_t."""
    weights, v, _ = trained(name, factor_masking=False)
    y = weights - RATE * v
    assert_moves_by(y, -RATE * buffered(mean_gradients(weights)))


@pytest.mark.parametrize("name", CHANNELS)
def test_without_masking_it_telescopes(name):
    """w_t - lr mean v_t - lr b / (1 - b) mean u_t, with the step lr / (1 - b)."""
    weights, v, u = trained(name, factor_masking=False)
    z = weights - RATE * v - RATE * MOMENTUM / (1 - MOMENTUM) * u
    steps = -RATE / (1 - MOMENTUM) * mean_gradients(weights)
    assert_moves_by(z, steps)


def test_with_masking_w_less_what_is_owed_moves_by_the_momentum_before_the_mask():
    """y_{t+1} = y_t - lr mean u_t, u_t = b u_{t-1} (masked) + g_t."""
    weights, v, u = trained("top_k", factor_masking=True)
    y = weights - RATE * v
    before_the_mask = MOMENTUM * u[:-1] + mean_gradients(weights)
    assert_moves_by(y, -RATE * before_the_mask)


@pytest.mark.parametrize("factor_masking", [True, False])
def test_masking_clears_the_momentum_where_something_was_sent(factor_masking):
    tx = dgc(RATE, CHANNELS["top_k"], factor_masking=factor_masking)
    _, states = problems.run(tx, problem())
    sent = residual(states)[1:] == 0
    momentum = residual(states, "momentum")[1:]
    assert np.any(momentum[sent]) != factor_masking
    assert momentum[~sent].all()


def test_without_masking_it_is_error_feedback_behind_local_momentum():
    """At a constant rate, for a compressor that commutes with scaling."""
    weights, _, _ = trained("top_k", factor_masking=False)
    theirs, _ = problems.run(ef_momentum(RATE, CHANNELS["top_k"]), problem())
    np.testing.assert_allclose(weights, theirs, rtol=1e-10)
