"""Tests of Adam that is frozen: both phases, its state, and its precision."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import averaged, exact, freezing_adam
from tests.support import harness

STEPS, WORKERS, D, FREEZE = 6, 3, 5, 3


def gradients(dtype: str = "float32"):
    draw = np.random.default_rng(0)
    return draw.normal(size=(STEPS, WORKERS, D)).astype(jnp.dtype(dtype))


def test_it_is_adam_and_later_momentum_over_what_was_frozen(float64):
    tx = freezing_adam(
        averaged(exact()), FREEZE, momentum=0.8, variance_decay=0.9, epsilon=1e-3
    )
    moved, states = harness.updates(tx, jnp.zeros(D), gradients("float64"))
    m, v = np.zeros((2, D))
    for t, g in enumerate(gradients("float64").mean(axis=1)):
        m = 0.8 * m + 0.2 * g
        v = 0.9 * v + 0.1 * g**2 if t < FREEZE else v
        np.testing.assert_allclose(moved[t, 0], m / (np.sqrt(v) + 1e-3), rtol=1e-12)
        np.testing.assert_allclose(states.momentum[t + 1], m, rtol=1e-12)
        np.testing.assert_allclose(states.variance[t + 1], v, rtol=1e-12)
    frozen = states.variance[FREEZE:]
    np.testing.assert_array_equal(frozen, np.broadcast_to(frozen[0], frozen.shape))


def test_the_inner_transformation_gets_gradients_and_later_momenta(float64):
    """What it returns in the second phase is the momentum."""
    got = []

    def answer(updates, params):
        del params
        got.append(updates)
        return jnp.full_like(updates, 7)

    tx = freezing_adam(optax.stateless(answer), 1, momentum=0.5)
    state, zeros = tx.init(jnp.zeros(2)), jnp.zeros(2)
    for g in (jnp.array([1.0, 2.0]), jnp.array([4.0, 8.0])):
        _, state = tx.update(g, state, zeros)
    np.testing.assert_array_equal(got[0], [1, 2])
    np.testing.assert_array_equal(got[1], 0.5 * 3.5 + 0.5 * np.array([4, 8]))
    np.testing.assert_array_equal(optax.tree.get(state, "momentum"), 7)


def test_16_bits_are_remembered_in_float32():
    tx = freezing_adam(averaged(exact()), 2)
    moved, states = harness.updates(tx, jnp.zeros(D, "bfloat16"), gradients("bfloat16"))
    kept = moved, states.momentum, states.variance
    assert {leaf.dtype for leaf in kept} == {jnp.dtype("float32")}


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="`freeze_step` must be a whole number"):
        freezing_adam(averaged(exact()), 0)
    with pytest.raises(ValueError, match=r"`variance_decay` must be in \[0, 1\)"):
        freezing_adam(averaged(exact()), 3, variance_decay=1.0)
    with pytest.raises(ValueError, match="`epsilon` must be finite and greater than 0"):
        freezing_adam(averaged(exact()), 3, epsilon=0.0)
