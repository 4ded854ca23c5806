"""Tests of float32 states for 16-bit trees."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import all_gather, error_feedback, top_k, with_float32_state
from tests.support import harness, problems


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_for_32_and_64_bits_it_is_inner(dtype):
    with jax.enable_x64(dtype == "float64"):
        params = problems.tree(jnp.linspace(-1, 1, 20, dtype=dtype))
        inner = optax.adam(0.1)
        expected = inner.update(params, inner.init(params), params)
        tx = with_float32_state(inner)
        chex.assert_trees_all_equal(
            tx.update(params, tx.init(params), params), expected
        )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_for_16_bits_updates_and_state_are_float32(dtype):
    params = problems.tree(jnp.linspace(-1, 1, 20, dtype=dtype))
    tx = with_float32_state(optax.adam(0.1))
    for leaf in jax.tree.leaves(tx.update(params, tx.init(params), params)):
        assert leaf.dtype in (np.float32, np.int32)


def test_behind_error_feedback_an_optimizer_trains_16_bits():
    """Without `with_float32_state` the dtypes of its state would change."""
    channel = all_gather(top_k(0.2))
    params = jnp.ones(20, jnp.bfloat16)
    gradients = jnp.ones((3, 2, 20), jnp.bfloat16)

    bare = optax.chain(error_feedback(channel), optax.adam(0.1))
    with pytest.raises(ValueError, match=r"mu.* must be bfloat16"):
        harness.updates(bare, params, gradients)

    tx = optax.chain(error_feedback(channel), with_float32_state(optax.adam(0.1)))
    moved, _ = harness.updates(tx, params, gradients)
    assert np.abs(moved).max() > 0.05
