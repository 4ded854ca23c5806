"""Tests of how far neighbours are: its matrix, its zeros, and what it sends."""

from typing import Any, cast

import numpy as np
import pytest

from gmc_jax import disagreement, gossip, message_bits, topologies
from tests.support import harness

TOPOLOGIES = {
    "ring": topologies.ring(8),
    "torus": topologies.torus(2, 4),
    "one-peer": topologies.one_peer_exponential(8),
    "matchings": topologies.random_matchings(8, rounds=2),
}


@pytest.mark.parametrize("name", TOPOLOGIES)
@pytest.mark.parametrize("calls", [1, 2])
def test_it_is_what_gossip_changes(name, calls):
    topology = TOPOLOGIES[name]
    values = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    mean, lost, _ = harness.average(disagreement(topology), values, calls=calls)
    matrix = topology.rounds[(calls - 1) % len(topology.rounds)]
    np.testing.assert_allclose(mean, matrix @ values - values, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(lost, values)


def test_what_one_gains_another_loses():
    """To rounding of the differences, however large the values are."""
    values = 1e6 + np.random.default_rng(0).normal(size=(8, 50)).astype(np.float32)
    mean, _, _ = harness.average(disagreement(topologies.ring(8)), values)
    assert np.abs(np.asarray(mean).sum(axis=0)).max() < 1e-5
    same = np.full((8, 5), 1e6, np.float32)
    mean, _, _ = harness.average(disagreement(topologies.ring(8)), same)
    np.testing.assert_array_equal(mean, 0)


def test_it_costs_as_much_as_gossip():
    ring, tree = topologies.ring(8), {"a": np.ones((3, 4), np.float32), "b": 1.0}
    assert message_bits(disagreement(ring), tree) == message_bits(gossip(ring), tree)
    entries = disagreement(ring).entries
    assert entries is not None
    assert entries(tree) == 26


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="doubly stochastic"):
        disagreement(topologies.pushing([[0, 1, 1], [1, 0, 0], [1, 0, 0]]))
    with pytest.raises(TypeError, match="`topology` must be a topology"):
        disagreement(cast(Any, np.eye(3)))
    with pytest.raises(ValueError, match=r"must have as many workers.* got one of 3"):
        harness.average(disagreement(topologies.ring(3)), np.ones((8, 2), np.float32))
    with pytest.raises(TypeError, match="hold real floats"):
        harness.average(disagreement(topologies.ring(8)), np.ones((8, 2), int))
