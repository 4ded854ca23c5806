"""Tests of the outer half of SlowMo by itself."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import slow_momentum


def run(tx, ways) -> tuple[np.ndarray, Any]:
    state, out = tx.init(jnp.zeros(3)), []
    for way in ways:
        move, state = tx.update(jnp.asarray(way), state)
        out.append(move)
    return np.stack(out), state


WAYS = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


@pytest.mark.parametrize("rate", [None, 0.03])
def test_at_a_constant_rate_it_is_sgd_with_momentum(rate):
    ours, state = run(slow_momentum(0.7, 0.5, rate, period=4), WAYS)
    theirs, _ = run(optax.sgd(0.7, 0.5), WAYS)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert state.meeting == 6


def test_the_rate_is_that_of_the_last_local_step():
    """Meeting t ends with step 4 t + 3, whose rate stands in both places."""

    def rates(step):
        return 0.1 / (1 + step)

    ours, _ = run(slow_momentum(0.7, 0.5, rates, period=4), WAYS)
    u = 0
    for t, way in enumerate(WAYS):
        rate = rates(4 * t + 3)
        u = 0.5 * u + way / rate
        np.testing.assert_allclose(ours[t], -0.7 * rate * u, rtol=1e-5)


def test_where_the_rate_is_0_the_way_is_gone_and_not_remembered():
    """By alpha times the way: the rate cancels, as where it is nearly 0."""
    tx = slow_momentum(0.7, 0.5, lambda step: jnp.where(step == 1, 0.0, 0.1))
    ours, state = run(tx, WAYS[:2])
    np.testing.assert_allclose(ours[1], -0.7 * WAYS[1], rtol=1e-5)
    np.testing.assert_allclose(state.momentum, 0.5 * WAYS[0] / 0.1, rtol=1e-5)
    nearly = slow_momentum(0.7, 0.5, lambda step: jnp.where(step == 1, 1e-6, 0.1))
    np.testing.assert_allclose(run(nearly, WAYS[:2])[0], ours, rtol=1e-4)


def test_the_rate_stays_the_last_where_the_count_of_steps_ends():
    """Counters that end: their products with a period do not turn negative."""

    def rate(step: jax.typing.ArrayLike) -> jax.Array:
        return jnp.where(jnp.asarray(step) < 0, 9.0, 0.1)

    tx = slow_momentum(1.0, 0.5, rate, period=12)
    state: Any = tx.init(WAYS[0])
    for meeting in (2**31 // 12, 2**31 - 1):
        after: Any
        _, after = tx.update(WAYS[0], state._replace(meeting=jnp.int32(meeting)))
        np.testing.assert_allclose(after.momentum, WAYS[0] / 0.1, rtol=1e-5)


def test_it_remembers_16_bits_in_32():
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
