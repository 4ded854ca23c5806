"""Tests of what MATCHA solves; its topologies are in `test_random_topology`."""

import numpy as np
import pytest

from gmc_jax.graphs._matcha import best_probabilities, laplacian, matchings_of
from tests.support.graphs import GRAPHS


def lambda_2(laplacians: np.ndarray, chances: np.ndarray) -> float:
    return np.linalg.eigvalsh(np.tensordot(chances, laplacians, 1))[1]


@pytest.mark.parametrize("name", GRAPHS)
def test_matchings_hold_every_edge_once_and_no_worker_twice(name):
    edges, matchings = GRAPHS[name], matchings_of(GRAPHS[name])
    total = np.zeros(edges.shape, int)
    for pairs in matchings:
        workers = [worker for pair in pairs for worker in pair]
        assert len(workers) == len(set(workers))
        for one, other in pairs:
            total[one, other] += 1
            total[other, one] += 1
    np.testing.assert_array_equal(total, edges)
    degree = edges.sum(axis=0).max()
    assert degree <= len(matchings) < 2 * degree


@pytest.mark.parametrize("name", GRAPHS)
def test_no_other_probabilities_connect_better(name):
    """Of random ones with the same sum, and of small changes."""
    laplacians = np.stack(
        [laplacian(len(GRAPHS[name]), pairs) for pairs in matchings_of(GRAPHS[name])]
    )
    count, draw = len(laplacians), np.random.default_rng(0)
    for budget in (0.2, 0.7):
        chances = best_probabilities(laplacians, budget)
        assert (chances >= 0).all()
        assert (chances <= 1).all()
        assert chances.sum() <= budget * count + 1e-6
        best = lambda_2(laplacians, chances)
        for scale in (0.3, 0.01):
            for _ in range(200):
                other = np.clip(chances + scale * draw.normal(size=count), 0, 1)
                other *= min(1, budget * count / max(other.sum(), 1e-9))
                assert lambda_2(laplacians, other) <= best + 2e-6
