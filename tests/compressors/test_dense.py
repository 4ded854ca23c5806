"""Tests of the compressor that sends the whole vector."""

import jax
import jax.numpy as jnp
import numpy as np

from gmc_jax import dense


def test_the_message_is_the_vector_and_nothing_is_lost():
    x = jnp.arange(5.0)

    message, lost = dense().encode(jax.random.key(0), x)

    np.testing.assert_array_equal(message, x)
    np.testing.assert_array_equal(lost, np.zeros(5))


def test_messages_may_be_added_without_decoding():
    assert dense().shared
