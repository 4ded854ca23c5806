"""Tests of the transform alone; QG-DSGDm is in methods/test_qg_dsgdm."""

from typing import Any, cast

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import exact, quasi_global_momentum


def outs(tx: optax.GradientTransformation, gradients: list[float]) -> list[float]:
    state, found = tx.init(jnp.zeros(1)), []
    for gradient in gradients:
        out: Any
        out, state = tx.update(jnp.full(1, gradient), state)
        found.append(float(out[0]))
    return found


def test_the_buffer_follows_the_moves_of_inner():
    """Whatever inner does to a gradient: here it doubles every move."""
    tx = quasi_global_momentum(optax.scale(-2.0), 0.5, 0.8)
    first, second, third = outs(tx, [1.0, 0.0, 0.0])
    assert first == -2
    np.testing.assert_allclose(second, -2 * 0.5 * (0.2 * 2), rtol=1e-6)
    v = 0.8 * 0.4 + 0.2 * 0.4
    np.testing.assert_allclose(third, -2 * 0.5 * v, rtol=1e-6)


def test_at_a_rate_of_zero_the_buffer_only_decays():
    """Although inner moves: another worker may pull."""
    rates = jnp.array([0.5, 0.0, 0.0, 0.5])
    tx = quasi_global_momentum(
        optax.scale_by_learning_rate(0.5), 0.5, 0.8, lambda step: rates[step]
    )
    *_, last = outs(tx, [1.0, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(last, -0.5 * 0.5 * (0.2 * 0.8**2), rtol=1e-6)


def test_its_buffer_is_float32_for_16_bits():
    state: Any = quasi_global_momentum(optax.sgd(0.1), 0.9, 0.9).init(
        jnp.ones(3, jnp.bfloat16)
    )
    assert state.momentum.dtype == jnp.float32


def test_errors_name_what_is_wrong():
    with pytest.raises(TypeError, match="`inner` must be"):
        quasi_global_momentum(cast(Any, exact()), 0.9, 0.9)
    with pytest.raises(ValueError, match="`decay`"):
        quasi_global_momentum(optax.sgd(0.1), 1.0, 0.9)
    with pytest.raises(ValueError, match="`buffer_decay`"):
        quasi_global_momentum(optax.sgd(0.1), 0.9, -0.1)
