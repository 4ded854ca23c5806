"""Tests of MATCHA's topologies: the weight, the matrices, and what is refused."""

import itertools
import sys

import numpy as np
import pytest

from gmc_jax import topologies
from gmc_jax.graphs.random_topology import RandomTopology
from tests.support.graphs import GRAPHS, ring


def made(name: str, budget: float = 0.5) -> RandomTopology:
    return topologies.matcha(GRAPHS[name], budget)


def moment(topology: RandomTopology, weight: float) -> float:
    """The norm of E[W'W] - J, summed over all that may be drawn."""
    n, total = topology.workers, 0
    for active in itertools.product((0, 1), repeat=len(topology.matchings)):
        p = np.array(topology.probabilities)
        chance = np.prod(np.where(active, p, 1 - p))
        w = np.eye(n) - weight * np.tensordot(active, topology.laplacians, 1)
        total = total + chance * w.T @ w
    return float(np.linalg.norm(total - np.full((n, n), 1 / n), 2))


def test_a_fixed_ring_of_6():
    topology = topologies.matcha(ring(6), 1.0)
    assert topology.probabilities == (1, 1)
    np.testing.assert_allclose(topology.weight, 0.4, rtol=1e-12)  # 2 / (1 + 4)
    np.testing.assert_allclose(topology.spectral_gap, 1 - 0.6, rtol=1e-12)
    np.testing.assert_allclose(
        topology.matrix((1, 1)), topologies.ring(6, self_weight=0.2).rounds[0]
    )


def test_matchings_that_matter_are_active_more_often():
    """Two triangles and one edge between them, which is a matching of its own."""
    edges = np.zeros((6, 6), bool)
    for one, other in [(0, 1), (1, 2), (0, 2), (3, 4), (4, 5), (3, 5), (2, 3)]:
        edges[one, other] = edges[other, one] = True
    topology = topologies.matcha(edges, 0.5)
    of_bridge = [(2, 3) in pairs for pairs in topology.matchings].index(True)
    assert topology.probabilities[of_bridge] == max(topology.probabilities)
    assert max(topology.probabilities) > min(topology.probabilities) + 0.2


@pytest.mark.parametrize("name", ["ring", "star", "some"])
def test_no_other_weight_contracts_better(name):
    topology = made(name)
    best = moment(topology, topology.weight)
    np.testing.assert_allclose(1 - topology.spectral_gap, best**0.5, rtol=1e-9)
    for weight in topology.weight * np.array([0.5, 0.99, 0.9999, 1.0001, 1.01, 2]):
        assert moment(topology, weight) >= best - 1e-12


@pytest.mark.parametrize("name", GRAPHS)
def test_every_matrix_is_symmetric_and_doubly_stochastic(name):
    topology = made(name)
    matrices, chances = [], []
    for active in itertools.product((0, 1), repeat=len(topology.matchings)):
        matrix = topology.matrix(active)
        np.testing.assert_array_equal(matrix, matrix.T)
        np.testing.assert_allclose(matrix.sum(axis=0), 1, rtol=1e-12)
        matrices.append(matrix)
        p = np.array(topology.probabilities)
        chances.append(np.prod(np.where(active, p, 1 - p)))
    mean = np.tensordot(chances, matrices, 1)
    np.testing.assert_allclose(
        mean, topology.matrix(topology.probabilities), atol=1e-12
    )
    for one, alone in enumerate(topology.single):
        active = np.eye(len(topology.matchings))[one]
        np.testing.assert_allclose(alone.rounds[0], topology.matrix(active), atol=1e-15)


def test_one_worker_has_nobody():
    topology = topologies.matcha(np.zeros((1, 1)), 0.5)
    assert topology.matchings == topology.single == ()
    assert topology.degree == 0
    assert topology.spectral_gap == 1


def test_errors_name_what_is_wrong(monkeypatch):
    with pytest.raises(ValueError, match="`adjacency` must be symmetric"):
        topologies.matcha([[0, 1], [0, 0]], 0.5)
    with pytest.raises(ValueError, match=r"connected graph, got workers .*\[0, 1\]"):
        topologies.matcha(np.zeros((2, 2)), 0.5)
    for wrong in (0.0, 1.5):
        with pytest.raises(ValueError, match="`budget` must be in"):
            topologies.matcha(ring(3), wrong)
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(ImportError, match=r'pip install "gmc_jax\[matcha\]"'):
        topologies.matcha(ring(3), 0.5)
    topologies.matcha(ring(3), 1.0)  # Which needs no solver.
