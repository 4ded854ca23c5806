"""Tests of the transform alone; DCD-PSGD is in methods/test_dcd_psgd."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gmc_jax
from gmc_jax import compressed_gossip, difference_compression, random_block, topologies


def test_workers_move_by_what_they_send():
    """The larger of two entries goes, whatever is the difference to the neighbours."""
    channel = compressed_gossip(topologies.ring(2), gmc_jax.top_k(0.5))
    tx = difference_compression(channel)
    steps = jnp.array([[2.0, 1.0], [0.0, 4.0]])

    def worker(step):
        first, state = tx.update(step, tx.init(step), step)
        second, state = tx.update(0 * step, state, step)
        return first, second, state

    run = jax.jit(jax.vmap(worker, axis_name="workers"))
    first: Any
    second: Any
    state: Any
    first, second, state = run(steps)
    np.testing.assert_allclose(first, [[2, 0], [0, 4]])
    # They are 2 apart in one entry and 4 in the other: half of it leads to the other.
    np.testing.assert_allclose(second, [[0, 2], [0, -2]])
    np.testing.assert_allclose(state.disagreement, [[-1, 0], [1, 0]])


def test_its_state_is_float32_for_16_bits():
    tx = difference_compression(
        compressed_gossip(topologies.ring(2), random_block(0.5))
    )
    state: Any = tx.init(jnp.ones(3, jnp.bfloat16))
    assert state.disagreement.dtype == jnp.float32


def test_a_compressor_is_no_channel():
    with pytest.raises(TypeError, match="`channel` must be a channel"):
        difference_compression(cast(Any, gmc_jax.top_k(0.1)))
