"""Tests of messages, taken apart into permutations."""

import numpy as np
import pytest

from gmc_jax.graphs.matchings import permutations
from tests.graphs.test_topologies import TOPOLOGIES


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_exchanges_are_the_matrix(name):
    """Each message is sent once, and in as few permutations as there can be."""
    topology = TOPOLOGIES[name]
    everyone = set(range(topology.workers))
    for matrix, exchanges in zip(topology.rounds, topology.exchanges, strict=True):
        rebuilt = np.diag(np.diag(matrix))
        for exchange in exchanges:
            senders, receivers = zip(*exchange.pairs, strict=True)
            assert set(senders) == set(receivers) == everyone
            for sender, receiver in exchange.pairs:
                if sender != receiver:
                    rebuilt[receiver, sender] += exchange.weights[receiver]
                else:
                    assert exchange.weights[receiver] == 0
        np.testing.assert_array_equal(rebuilt, matrix)
        sent = (matrix > 0) & ~np.eye(len(matrix), dtype=bool)
        assert len(exchanges) == max(sent.sum(axis=0).max(), sent.sum(axis=1).max())


def test_who_is_alone_sends_nothing():
    assert permutations(np.eye(3)) == ()
