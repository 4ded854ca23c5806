"""Tests of matchings: the messages of a round as permutations."""

import numpy as np
import pytest

from gmc_jax.graphs.matchings import permutations
from tests.graphs.test_topologies import TOPOLOGIES


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_matchings_send_what_the_matrix_says(name):
    """Each message is sent once, in as few permutations as possible."""
    topology = TOPOLOGIES[name]
    everyone = set(range(topology.workers))
    for matrix, matchings in zip(topology.rounds, topology.matchings, strict=True):
        rebuilt = np.diag(np.diag(matrix))
        for matching in matchings:
            senders, receivers = zip(*matching.pairs, strict=True)
            assert set(senders) == set(receivers) == everyone
            for sender, receiver in matching.pairs:
                if sender != receiver:
                    rebuilt[receiver, sender] += matching.weights[receiver]
                else:
                    assert matching.weights[receiver] == 0
        np.testing.assert_array_equal(rebuilt, matrix)
        sent = (matrix > 0) & ~np.eye(len(matrix), dtype=bool)
        assert len(matchings) == max(sent.sum(axis=0).max(), sent.sum(axis=1).max())


def test_workers_without_neighbours_send_nothing():
    assert permutations(np.eye(3)) == ()
