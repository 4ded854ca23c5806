"""Tests of what is given back after averaging; D2 is in methods/test_d2."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax import differences


def test_where_parameters_move_by_what_it_returns_it_changes_nothing():
    tx = differences()
    params = jnp.float32([1.0, 2.0])
    state = tx.init(params)
    for step in np.array([[0.5, -1], [0.25, 2], [0, 1]], np.float32):
        out, state = tx.update(jnp.asarray(step), state, params)
        np.testing.assert_array_equal(out, step)
        params = params + out


def test_what_averaging_took_is_given_back_once():
    tx = differences()
    params = jnp.float32([1.0, 2.0])
    _, state = tx.update(jnp.float32([0.5, 0.5]), tx.init(params), params)
    averaged = jnp.float32([1.0, 3.0])  # and not 1.5 and 2.5
    out, state = tx.update(jnp.zeros(2), state, averaged)
    np.testing.assert_array_equal(out, [-0.5, 0.5])
    out, _ = tx.update(jnp.zeros(2), state, averaged)
    np.testing.assert_array_equal(out, [0, 0])


def test_it_remembers_16_bits_in_32_and_owns_its_memory():
    params = jnp.ones(3, jnp.bfloat16)
    narrow: Any = differences().init(params)
    assert narrow.ahead.dtype == jnp.float32
    wide = jnp.ones(3)
    state: Any = differences().init(wide)
    wide.delete()
    np.testing.assert_array_equal(state.ahead, 1)


def test_it_needs_parameters():
    tx = differences()
    with pytest.raises(ValueError, match="must be given them"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
