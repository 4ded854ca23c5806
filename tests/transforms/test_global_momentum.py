"""Tests of global momentum: the last output feeds the next input."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import (
    GlobalMomentumState,
    all_gather,
    averaged,
    error_feedback,
    exact,
    global_momentum,
    top_k,
)
from tests.support import harness

STEPS, WORKERS, D = 8, 3, 6
GRADIENTS = np.random.default_rng(0).normal(size=(STEPS, WORKERS, D))
DENSE = averaged(exact())


def fed_back(rates=None) -> np.ndarray:
    """out_t = mean g_t + 0.9 ratio_t out_{t-1} in NumPy, [steps, d]."""
    outs, last = [np.zeros(D)], 0.0
    for t, gradient in enumerate(GRADIENTS.mean(axis=1)):
        ratio = 1.0
        if rates is not None:
            ratio = last / rates[t] if rates[t] else 0.0
            last = rates[t]
        outs.append(gradient + 0.9 * ratio * outs[-1])
    return np.stack(outs[1:])


def test_without_a_rate_it_is_the_buffer_of_optax(float64):
    ours, states = harness.updates(global_momentum(DENSE, 0.9), np.zeros(D), GRADIENTS)
    trace = optax.chain(DENSE, optax.trace(0.9))
    theirs, _ = harness.updates(trace, np.zeros(D), GRADIENTS)
    np.testing.assert_allclose(ours, theirs, rtol=1e-13)
    np.testing.assert_allclose(ours[:, 1], fed_back(), rtol=1e-12)
    np.testing.assert_array_equal(states.momentum[1:], ours[:, 0])


@pytest.mark.parametrize(
    "rates",
    [
        [0.4, 0.3, 0.2, 0.2, 0.1, 0.05, 0.3, 0.2],
        [0, 0.1, 0.2, 0.2, 0.1, 0.1, 0, 0],
        [0.1, 0, 0, 0.2, 0.2, 0, 0.1, 0.1],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ],
)
def test_with_a_rate_it_is_rescaled_and_zero_where_the_rate_is_zero(rates, float64):
    table = jnp.asarray(rates, float)
    tx = global_momentum(DENSE, 0.9, lambda step: table[step])
    ours, states = harness.updates(tx, np.zeros(D), GRADIENTS)
    np.testing.assert_allclose(ours[:, 0], fed_back(rates), rtol=1e-12)
    assert isinstance(states, GlobalMomentumState)
    np.testing.assert_allclose(states.rate[1:], rates, rtol=1e-15)


@pytest.mark.parametrize("rate", [0.3, jnp.float32(0.3), np.float64(0.3)])
def test_a_constant_rate_changes_nothing(rate, float64):
    tx = global_momentum(DENSE, 0.9, rate)
    ours, _ = harness.updates(tx, np.zeros(D), GRADIENTS)
    np.testing.assert_allclose(ours[:, 0], fed_back(), rtol=1e-12)


def test_what_is_fed_back_is_the_output_not_the_input():
    """So the momentum is as sparse as the messages, and the same on all workers."""
    tx = global_momentum(error_feedback(all_gather(top_k(0.3))), 0.9)
    gradients = GRADIENTS.astype(np.float32)
    moved, states = harness.updates(tx, np.zeros(D, np.float32), gradients)
    assert states.momentum.shape == (STEPS + 1, D)
    np.testing.assert_array_equal(states.momentum[1:], moved[:, 2])
    assert not states.momentum[0].any()
    residuals = states.inner.residual
    entered = gradients + np.concatenate([0 * moved[:1], 0.9 * moved[:-1]])
    np.testing.assert_allclose(
        (residuals[:-1] + entered - residuals[1:]).mean(axis=1), moved[:, 0], atol=1e-6
    )


def test_its_momentum_is_float32_for_16_bits():
    params = jnp.zeros(D, jnp.bfloat16)
    tx = global_momentum(error_feedback(all_gather(top_k(0.3))), 0.9, 0.1)
    _, states = harness.updates(tx, params, GRADIENTS.astype(jnp.bfloat16))
    assert states.momentum.dtype == np.float32


@pytest.mark.parametrize("decay", [1.0, -0.1, math.nan])
def test_the_decay_must_fade(decay):
    with pytest.raises(ValueError, match=r"`decay` must be in \[0, 1\)"):
        global_momentum(DENSE, decay)


def test_traced_hyperparameters_are_not_checked():
    def first_output(decay, rate):
        tx = global_momentum(optax.identity(), decay, rate)
        return tx.update(jnp.ones(2), tx.init(jnp.ones(2)))[0]

    np.testing.assert_array_equal(jax.jit(first_output)(0.9, 0.1), [1, 1])
