"""Tests of exact diffusion alone; D2 is in methods/test_d2."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gmc_jax
from gmc_jax import disagreement, exact_diffusion, topologies

CHANNEL = disagreement(topologies.lazy(topologies.ring(4)))


def walk(steps: np.ndarray) -> np.ndarray:
    """From 0, the parameters after each of some steps [steps, workers, d]."""
    tx = exact_diffusion(CHANNEL)

    def worker(steps):
        def on(state, step):
            params, inner = state
            updates, inner = tx.update(step, inner, params)
            return (params + updates, inner), params + updates

        start = jnp.zeros(steps.shape[1])
        return jax.lax.scan(on, (start, tx.init(start)), steps)[1]

    workers = jax.vmap(worker, in_axes=1, out_axes=1, axis_name="workers")
    return np.asarray(jax.jit(workers)(steps))


def test_where_all_steps_are_equal_it_changes_nothing():
    steps = np.random.default_rng(0).normal(size=(3, 1, 2)).astype(np.float32)
    points = walk(steps.repeat(4, axis=1))
    np.testing.assert_array_equal(points, steps.cumsum(axis=0).repeat(4, axis=1))


def test_corrections_cancel_steps_whose_mean_is_zero():
    """All workers come to rest at one point, although their own steps go on."""
    steps = np.zeros((200, 4, 2), np.float32)
    steps[:, 0], steps[:, 1] = 1, -1
    points = walk(steps)
    np.testing.assert_allclose(points[-1], points[-2], atol=1e-5)
    np.testing.assert_allclose(points[-1], 0, atol=1e-4)


def test_its_correction_is_float32_for_16_bits():
    state: Any = exact_diffusion(CHANNEL).init(jnp.ones(3, jnp.bfloat16))
    assert state.correction.dtype == jnp.float32


def test_errors_name_what_is_wrong():
    tx = exact_diffusion(CHANNEL)
    with pytest.raises(ValueError, match="`params` must be given"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
    with pytest.raises(TypeError, match="`channel` must be a channel"):
        exact_diffusion(cast(Any, gmc_jax.top_k(0.1)))
