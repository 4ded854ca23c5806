"""Tests of CHOCO's gossip in which nobody waits; see also `test_gossip_differences`."""

import jax
import jax.numpy as jnp
import numpy as np

from gmc_jax import (
    dense,
    gossip_differences,
    gossip_differences_overlapped,
    random_block,
    topologies,
)
from tests.support import harness

RING = topologies.ring(6)


def test_it_is_the_gossip_of_the_call_before():
    """The step that the last messages told, from where the worker is now."""
    values = np.random.default_rng(0).normal(size=(6, 20)).astype(np.float32)
    channel = gossip_differences_overlapped(RING, dense(), 1.0)
    first, _, _ = harness.average(channel, values, calls=1)
    np.testing.assert_array_equal(first, values)
    second, _, _ = harness.average(channel, values, calls=2)
    np.testing.assert_allclose(second, RING.rounds[0] @ values, atol=1e-6)


def test_the_mean_waits_for_no_message():
    """And in the other order it does."""

    def text(make):
        channel = make(topologies.ring(8), random_block(0.2), 0.5)

        def mean(tree):
            return channel.average(tree, channel.init(tree))[0]

        mapped = jax.pmap(mean, axis_name="workers")
        return mapped.lower(jnp.ones((8, 5))).compile().as_text()

    assert "collective-permute" in text(gossip_differences)
    assert "collective-permute" not in text(gossip_differences_overlapped)
