"""Tests of the value of a learning rate at a step."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import exact, gmc, gmc_plus, gmc_server_momentum, slowmo
from gmc_jax.transforms._learning_rate import rate_at

TINY = float(np.finfo(np.float32).tiny)
DIVIDING = {
    "gmc": gmc,
    "gmc_plus": gmc_plus,
    "gmc_server_momentum": gmc_server_momentum,
    "slowmo": lambda rate, channel: slowmo(
        optax.sgd(rate), channel, period=1, learning_rate=rate
    ),
}


def halving(step):
    """From the smallest normal number in float32 downwards."""
    return TINY * 0.5**step


@pytest.mark.parametrize("x64", [False, True])
def test_rates_below_the_normal_numbers_are_zero(x64):
    """XLA flushes them to 0 in some places and keeps them in others."""
    zero = jnp.zeros((), jnp.int32)
    with jax.enable_x64(x64):
        for rate in (0, 1e-45, TINY / 2):
            assert jax.jit(functools.partial(rate_at, rate))(zero) == 0
            assert jax.jit(rate_at, static_argnums=0)(lambda t, r=rate: r, zero) == 0
        for rate in (TINY, 0.1):
            assert jax.jit(functools.partial(rate_at, rate))(zero) == jnp.asarray(rate)


@pytest.mark.parametrize("rate", [1e-40, halving], ids=["constant", "schedule"])
@pytest.mark.parametrize("name", DIVIDING)
def test_methods_that_divide_by_a_rate_stay_finite(name, rate):
    """In a ratio of two rates, one might be flushed to 0 and the other kept."""
    tx = DIVIDING[name](rate, exact())
    params, gradients = jnp.ones(3), jnp.ones((2, 3))

    @functools.partial(jax.vmap, axis_name="workers", in_axes=(0, None))
    def three_steps(gradient, params):
        state = tx.init(params)
        for _ in range(3):
            updates, state = tx.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        return params, state

    moved, state = jax.jit(three_steps)(gradients, params)
    np.testing.assert_array_equal(moved, 1)
    chex.assert_tree_all_finite(state)
