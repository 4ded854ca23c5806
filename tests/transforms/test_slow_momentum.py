"""Tests of the outer half of SlowMo alone."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import slow_momentum


def run(tx, pseudo_gradients) -> tuple[np.ndarray, Any]:
    state, out = tx.init(jnp.zeros(3)), []
    for pseudo_gradient in pseudo_gradients:
        step, state = tx.update(jnp.asarray(pseudo_gradient), state)
        out.append(step)
    return np.stack(out), state


PSEUDO_GRADIENTS = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


@pytest.mark.parametrize("rate", [None, 0.03])
def test_at_a_constant_rate_it_is_sgd_with_momentum(rate):
    ours, state = run(slow_momentum(0.7, 0.5, rate, period=4), PSEUDO_GRADIENTS)
    theirs, _ = run(optax.sgd(0.7, 0.5), PSEUDO_GRADIENTS)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert state.step == 6


def test_the_rate_is_that_of_the_last_local_step():
    """Synchronisation t follows step 4 t + 3, whose rate stands in both places."""

    def rates(step):
        return 0.1 / (1 + step)

    ours, _ = run(slow_momentum(0.7, 0.5, rates, period=4), PSEUDO_GRADIENTS)
    u = 0
    for t, pseudo_gradient in enumerate(PSEUDO_GRADIENTS):
        rate = rates(4 * t + 3)
        u = 0.5 * u + pseudo_gradient / rate
        np.testing.assert_allclose(ours[t], -0.7 * rate * u, rtol=1e-5)


def test_where_the_rate_is_0_the_anchor_moves_and_the_momentum_decays():
    """By alpha times the pseudo-gradient: the rate cancels, as where it is nearly 0."""
    tx = slow_momentum(0.7, 0.5, lambda step: jnp.where(step == 1, 0.0, 0.1))
    ours, state = run(tx, PSEUDO_GRADIENTS[:2])
    np.testing.assert_allclose(ours[1], -0.7 * PSEUDO_GRADIENTS[1], rtol=1e-5)
    np.testing.assert_allclose(
        state.momentum, 0.5 * PSEUDO_GRADIENTS[0] / 0.1, rtol=1e-5
    )
    nearly = slow_momentum(0.7, 0.5, lambda step: jnp.where(step == 1, 1e-6, 0.1))
    np.testing.assert_allclose(run(nearly, PSEUDO_GRADIENTS[:2])[0], ours, rtol=1e-4)


def test_the_rate_stays_the_last_where_the_counter_saturates():
    """The count times the period does not overflow to a negative step."""

    def rate(step: jax.typing.ArrayLike) -> jax.Array:
        return jnp.where(jnp.asarray(step) < 0, 9.0, 0.1)

    tx = slow_momentum(1.0, 0.5, rate, period=12)
    state: Any = tx.init(PSEUDO_GRADIENTS[0])
    for step in (2**31 // 12, 2**31 - 1):
        after: Any
        _, after = tx.update(PSEUDO_GRADIENTS[0], state._replace(step=jnp.int32(step)))
        np.testing.assert_allclose(after.momentum, PSEUDO_GRADIENTS[0] / 0.1, rtol=1e-5)


def test_its_momentum_is_float32_for_16_bits():
    state: Any = slow_momentum(1.0, 0.5).init(jnp.zeros(3, jnp.bfloat16))
    assert state.momentum.dtype == jnp.float32


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((0, 0.5), "slow_learning_rate"),
        ((1.0, 1.0), "decay"),
        ((1.0, 0.5, -0.1), "learning_rate"),
    ],
)
def test_errors_name_what_is_wrong(arguments, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        slow_momentum(*arguments)
    with pytest.raises(ValueError, match="`period`"):
        slow_momentum(1.0, 0.5, period=0)
