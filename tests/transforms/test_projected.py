"""Tests of steps that end in a set."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import projected


def test_a_step_ends_at_the_projection():
    tx = projected(optax.projections.projection_non_negative)
    params = jnp.array([1.0, 2.0])
    out, _ = tx.update(jnp.array([-3.0, 1.0]), tx.init(params), params)
    np.testing.assert_array_equal(optax.apply_updates(params, out), [0, 3])


def test_it_needs_parameters():
    tx = projected(lambda tree: tree)
    with pytest.raises(ValueError, match="`projected` computes updates"):
        tx.update(jnp.ones(1), tx.init(jnp.ones(1)))
