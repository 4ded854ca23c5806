"""Tests of mixing matrices: their properties, their speed, and what is refused."""

from typing import Any, cast

import numpy as np
import pytest

from gmc_jax import topologies
from gmc_jax.graphs.topology import (
    Topology,
    check_doubly_stochastic,
    check_mixing,
)


def test_spectral_gaps():
    assert topologies.complete(5).spectral_gap == pytest.approx(1)
    assert topologies.one_peer_exponential(8).spectral_gap == pytest.approx(1)
    ring = 1 - (1 + 2 * np.cos(2 * np.pi / 8)) / 3
    assert topologies.ring(8).spectral_gap == pytest.approx(ring)
    assert topologies.lazy(topologies.ring(8)).spectral_gap == pytest.approx(ring / 2)
    apart = topologies.from_adjacency(np.kron(np.eye(2), [[0, 1], [1, 0]]))
    assert apart.spectral_gap == pytest.approx(0)


def test_smallest_eigenvalues():
    """For even numbers of workers the uniform ring lies exactly at the bound of D2."""
    for workers in (4, 6, 8, 32):
        ring = topologies.ring(workers)
        assert ring.smallest_eigenvalue == pytest.approx(-1 / 3)
        lazy = topologies.lazy(ring).smallest_eigenvalue
        assert lazy == pytest.approx(1 / 3)
    assert topologies.ring(5).smallest_eigenvalue > -1 / 3
    assert topologies.complete(4).smallest_eigenvalue == pytest.approx(0)


def test_a_topology_of_your_own_matrix():
    matrix = np.array([[0.7, 0.3], [0.3, 0.7]])
    topology = Topology((matrix,))
    assert topology.workers == 2
    assert topology.is_doubly_stochastic
    check_doubly_stochastic(topology)
    with pytest.raises(ValueError, match=r"doubly stochastic.*sgp"):
        check_doubly_stochastic(topologies.pushing(np.triu(np.ones((3, 3)))))


@pytest.mark.parametrize(
    ("rounds", "message"),
    [
        ((), "one for each round"),
        (np.eye(3), "shapes"),
        ((np.eye(3), np.eye(2)), "of one size"),
        ((np.ones((2, 3)),), "square"),
        ((np.array([[1.5, -0.5], [-0.5, 1.5]]),), "smallest is -0.5"),
        ((np.array([[np.nan, 1], [1, 0]]),), "finite"),
    ],
)
def test_rounds_are_mixing_matrices(rounds, message):
    with pytest.raises(ValueError, match=message):
        Topology(rounds)


def test_a_topology_that_does_not_contract_disagreement_is_an_error():
    with pytest.raises(ValueError, match=r"of modulus 1 .*`topologies.lazy"):
        check_mixing(topologies.ring(4, self_weight=0))
    check_mixing(topologies.lazy(topologies.ring(4, self_weight=0)))
    check_mixing(topologies.ring(5, self_weight=0))
    with pytest.raises(TypeError, match="`topology` must be a topology"):
        topologies.lazy(cast(Any, np.eye(3)))
