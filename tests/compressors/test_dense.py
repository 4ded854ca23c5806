"""Tests of the compressor that keeps everything."""

import jax
import jax.numpy as jnp
import numpy as np

from gmc_jax import dense


def test_nothing_is_lost_and_the_vector_is_the_message():
    x = jnp.arange(5.0)

    message, lost = dense().encode(jax.random.key(0), x)

    np.testing.assert_array_equal(message, x)
    np.testing.assert_array_equal(lost, np.zeros(5))


def test_its_messages_may_be_added_as_they_are():
    assert dense().shared
