"""Tests of what the server's state is; its loop is in test_ad_psgd."""

import jax.numpy as jnp
import numpy as np
import optax

from gmc_jax import Event, a_psgd


def test_who_has_not_read_knows_the_old():
    def gradient(params, batch):
        return jnp.float32(0), batch

    method = a_psgd(optax.sgd(1.0), gradient=gradient, workers=3)
    state = method.init(jnp.zeros(2))
    reads = np.array([False, True, False])
    state, _ = method.step(state, Event(0, 0, reads), jnp.ones(2))
    np.testing.assert_array_equal(state.params, [-1, -1])
    np.testing.assert_array_equal(state.known, [[0, 0], [-1, -1], [0, 0]])
    np.testing.assert_array_equal(method.evaluate(state), state.params)
