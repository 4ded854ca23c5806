"""Tests of the factories of topologies: their weights, and what is refused."""

import functools
import itertools
import math
import time
from collections.abc import Hashable, Iterator, Mapping

import numpy as np
import pytest

from gmc_jax import topologies
from gmc_jax.graphs.matchings import busiest
from gmc_jax.graphs.topology import check_keeps_the_mean, check_mixing

TOPOLOGIES = {
    "complete": topologies.complete(6),
    "ring of 1": topologies.ring(1),
    "ring of 2": topologies.ring(2),
    "ring of 3": topologies.ring(3),
    "ring of 8": topologies.ring(8),
    "heavy ring": topologies.ring(8, self_weight=0.6),
    "lazy ring": topologies.lazy(topologies.ring(8)),
    "torus": topologies.torus(3, 4),
    "narrow torus": topologies.torus(2, 3),
    "exponential": topologies.exponential(8),
    "exponential of 6": topologies.exponential(6),
    "one-peer": topologies.one_peer_exponential(8),
    "one-peer of 6": topologies.one_peer_exponential(6),
    "one-peer of 1": topologies.one_peer_exponential(1),
    "matchings": topologies.random_matchings(7, rounds=5),
    "star": topologies.from_adjacency(
        [[0, 1, 1, 1], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]
    ),
    "pushing": topologies.pushing(
        [[0, 1, 1, 0], [1, 0, 0, 0], [0, 1, 0, 1], [0, 1, 0, 0]]
    ),
}
every_topology = pytest.mark.parametrize("name", TOPOLOGIES)


@every_topology
def test_weights_keep_the_mean_and_are_doubly_stochastic_where_they_say_so(name):
    topology = TOPOLOGIES[name]
    for matrix in topology.rounds:
        assert (matrix >= 0).all()
        np.testing.assert_allclose(matrix.sum(axis=0), 1, rtol=1e-15)
    assert topology.keeps_the_mean
    assert topology.is_doubly_stochastic == (name != "pushing")
    directed = {"exponential", "exponential of 6", "one-peer", "one-peer of 6"}
    assert topology.is_symmetric == (name not in {*directed, "pushing"})


def test_weights_computed_by_hand():
    ring = topologies.ring(4).rounds[0]
    np.testing.assert_allclose(ring[0], [1 / 3, 1 / 3, 0, 1 / 3])
    np.testing.assert_allclose(topologies.ring(2).rounds[0], np.full((2, 2), 0.5))
    heavy = topologies.ring(4, self_weight=0.6).rounds[0]
    np.testing.assert_allclose(heavy[1], [0.2, 0.6, 0.2, 0])
    star = TOPOLOGIES["star"].rounds[0]
    np.testing.assert_allclose(star[0], [1 / 4] * 4)
    np.testing.assert_allclose(star[1], [1 / 4, 3 / 4, 0, 0])
    # In the third round of eight workers, worker 0 receives from worker 4.
    third = topologies.one_peer_exponential(8).rounds[2]
    np.testing.assert_allclose(third[0], [0.5, 0, 0, 0, 0.5, 0, 0, 0])
    push = TOPOLOGIES["pushing"].rounds[0]
    np.testing.assert_allclose(
        push[:, 1], [1 / 4] * 4
    )  # All others receive from worker 1.
    np.testing.assert_allclose(push[:, 0], [1 / 2, 1 / 2, 0, 0])


@pytest.mark.parametrize("workers", [2, 4, 8, 16, 32])
def test_one_peer_rounds_average_exactly_in_any_order(workers):
    rounds = topologies.one_peer_exponential(workers).rounds
    assert 2 ** len(rounds) == workers
    for order in itertools.islice(itertools.permutations(rounds), 24):
        product = functools.reduce(np.matmul, order)
        np.testing.assert_array_equal(product, np.full((workers, workers), 1 / workers))


def test_one_peer_rounds_of_six_workers_do_not_average_exactly():
    product = topologies.one_peer_exponential(6).matrix
    assert np.abs(product - 1 / 6).max() == pytest.approx(1 / 12)


def test_random_matchings_pair_all_workers_and_repeat_with_the_seed():
    topology = topologies.random_matchings(7, rounds=5, seed=3)
    for matrix in topology.rounds:
        assert sorted((matrix > 0).sum(axis=1)) == [1, 2, 2, 2, 2, 2, 2]
    again = topologies.random_matchings(7, rounds=5, seed=3)
    other = topologies.random_matchings(7, rounds=5, seed=4)
    np.testing.assert_array_equal(topology.rounds, again.rounds)
    assert not np.array_equal(topology.rounds, other.rounds)


class Nodes:
    """The part of a networkx graph that is read: named nodes and their edges."""

    def __init__(self, *edges: str):
        self.edges = edges

    def adjacency(self) -> Iterator[tuple[Hashable, Mapping[Hashable, object]]]:
        """Every node with its neighbours."""
        for node in "abc":
            yield node, {end: {} for start, end in self.edges if start == node}


def test_a_networkx_graph_gives_the_same_topology_as_its_matrix():
    both = Nodes("ab", "ba", "bc", "cb")
    path = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    np.testing.assert_array_equal(
        topologies.from_adjacency(both).rounds, topologies.from_adjacency(path).rounds
    )
    circle = topologies.pushing(Nodes("ab", "bc", "ca"))
    expected = np.array([[1, 0, 1], [1, 1, 0], [0, 1, 1]]) / 2  # b receives from a.
    np.testing.assert_array_equal(circle.rounds[0], expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: topologies.ring(0), "`workers`"),
        (lambda: topologies.torus(2, 0), "`columns`"),
        (lambda: topologies.ring(4, self_weight=1.5), "`self_weight`"),
        (lambda: topologies.lazy(topologies.ring(3), -0.1), "`share`"),
        (lambda: topologies.random_matchings(4, rounds=0), "`rounds`"),
        (lambda: topologies.from_adjacency(np.ones((2, 3))), r"shape \(2, 3\)"),
        (lambda: topologies.from_adjacency(np.zeros((0, 0))), r"shape \(0, 0\)"),
        (lambda: topologies.from_adjacency([[0, 1], [0, 0]]), "pushing"),
    ],
)
def test_errors_name_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("workers", "peers"), [(9, 2), (8, 1), (16, 3), (27, 2)])
def test_rotating_rounds_average_exactly_in_any_order(workers, peers):
    rounds = topologies.rotating_exponential(workers, peers).rounds
    assert len(rounds) == round(math.log(workers, peers + 1))
    for order in itertools.permutations(rounds):
        product = functools.reduce(np.matmul, order)
        np.testing.assert_allclose(product, 1 / workers, atol=1e-15)
    assert topologies.rotating_exponential(6, 1).spectral_gap < 1 - 1e-3


HUB = np.zeros((4096, 4096), bool)
HUB[0, 1:] = HUB[1:, 0] = True
LARGE = {
    "ring": lambda: topologies.ring(4096),
    "torus": lambda: topologies.torus(64, 64),
    "exponential": lambda: topologies.exponential(4096),
    "one-peer": lambda: topologies.one_peer_exponential(4096),
    "matchings": lambda: topologies.random_matchings(4096),
    "lazy": lambda: topologies.lazy(topologies.torus(16, 256)),
    "star": lambda: topologies.from_adjacency(HUB),
    "pushing": lambda: topologies.pushing(HUB),
}


@pytest.mark.parametrize("name", LARGE)
def test_thousands_of_workers_take_seconds_at_most(name):
    """Built, checked, and split into permutations, in CPU seconds of this process."""
    start = time.process_time()
    topology = LARGE[name]()
    check_keeps_the_mean(topology)
    check_mixing(topology)
    matchings = topology.matchings
    assert time.process_time() - start < 5  # It takes 0.01 to 0.7.
    for matrix, split in zip(topology.mixing, matchings, strict=True):
        assert len(split) == busiest(matrix)
    assert "rounds" not in vars(topology)


def test_rounds_cannot_be_written():
    with pytest.raises(ValueError, match="read-only"):
        topologies.ring(4).rounds[0][0, 0] = 1
