"""Tests of the transform alone; the method gradient_tracking is in methods."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gmc_jax
from gmc_jax import exact, gossip, topologies, track_gradients


def test_the_mean_of_trackers_is_the_mean_of_gradients():
    """For arbitrary gradients at every step."""
    tx = track_gradients(gossip(topologies.ring(5)))
    gradients = np.random.default_rng(0).normal(size=(8, 5, 3)).astype(np.float32)

    def follow(gradients):
        def on(state, gradient):
            tracker, state = tx.update(gradient, state, gradient)
            return state, tracker

        return jax.lax.scan(on, tx.init(gradients[0]), gradients)[1]

    everyone = jax.vmap(follow, in_axes=1, out_axes=1, axis_name="workers")
    trackers = np.asarray(jax.jit(everyone)(gradients))
    np.testing.assert_allclose(trackers.mean(1), gradients.mean(1), atol=2e-7)
    np.testing.assert_array_equal(trackers[0], gradients[0])
    assert np.ptp(trackers[-1], axis=0).min() > 1e-3


def test_its_state_is_float32_for_16_bits():
    params = jnp.ones(3, jnp.bfloat16)
    state: Any = track_gradients(exact()).init(params)
    assert state.tracker.dtype == state.last.dtype == jnp.float32


def test_a_compressor_is_no_channel():
    with pytest.raises(TypeError, match="`channel` must be a channel"):
        track_gradients(cast(Any, gmc_jax.top_k(0.1)))


def test_rounding_of_messages_is_not_lost():
    """Trackers of 16-bit trees travel in 16 bits; their mean is kept in float32."""
    tx = track_gradients(gossip(topologies.ring(5)))
    gradients = np.random.default_rng(0).normal(size=(5, 3)).astype(jnp.bfloat16)

    def follow(gradient):
        def on(state, _):
            tracker, state = tx.update(gradient, state, gradient)
            return state, tracker

        trackers: Any
        _, trackers = jax.lax.scan(on, tx.init(gradient), length=300)
        return trackers[-1]

    trackers = jax.jit(jax.vmap(follow, axis_name="workers"))(gradients)
    mean = np.asarray(trackers).mean(axis=0)
    np.testing.assert_allclose(mean, np.float32(gradients).mean(axis=0), atol=1e-5)
