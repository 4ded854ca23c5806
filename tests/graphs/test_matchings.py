"""Tests of matchings: the messages of a round as permutations."""

import numpy as np
import pytest

from gmc_jax import topologies
from gmc_jax.graphs import _colouring, matchings
from gmc_jax.graphs.matchings import permutations
from gmc_jax.graphs.sparse_matrix import sparse
from tests.graphs.test_topologies import TOPOLOGIES


def hypercube(dimensions: int) -> np.ndarray:
    """Neighbours differ in one bit of their number."""
    number = np.arange(2**dimensions)
    differ = number[:, None] ^ number
    return (differ & (differ - 1) == 0) & (differ > 0)


def tree(workers: int) -> np.ndarray:
    """Each worker but the first has a parent, of about half its number."""
    child = np.arange(1, workers)
    edges = np.zeros((workers, workers), bool)
    edges[child, (child - 1) // 2] = True
    return edges | edges.T


def some(workers: int, share: float) -> np.ndarray:
    """A directed graph, drawn at random."""
    return np.random.default_rng(workers).random((workers, workers)) < share


MANY = TOPOLOGIES | {
    "hypercube": topologies.from_adjacency(hypercube(5)),
    "tree": topologies.from_adjacency(tree(41)),
    "large torus": topologies.torus(6, 8),
    "some edges": topologies.pushing(some(30, 0.1)),
    "many edges": topologies.pushing(some(12, 0.5)),
}
every_topology = pytest.mark.parametrize("name", MANY)


def check_messages(matrix: np.ndarray, split: tuple[matchings.Matching, ...]) -> None:
    """Each message is sent once, in as few permutations as possible."""
    everyone = set(range(len(matrix)))
    rebuilt = np.diag(np.diag(matrix))
    for matching in split:
        senders, receivers = zip(*matching.pairs, strict=True)
        assert set(senders) == set(receivers) == everyone
        for sender, receiver in matching.pairs:
            if sender != receiver:
                rebuilt[receiver, sender] += matching.weights[receiver]
            else:
                assert matching.weights[receiver] == 0
    np.testing.assert_array_equal(rebuilt, matrix)
    sent = (matrix > 0) & ~np.eye(len(matrix), dtype=bool)
    most = max(sent.sum(axis=0).max(), sent.sum(axis=1).max())
    assert len(split) == matchings.busiest(sparse(matrix)) == most


@every_topology
def test_matchings_send_what_the_matrix_says(name):
    topology = MANY[name]
    for matrix, split in zip(topology.rounds, topology.matchings, strict=True):
        check_messages(matrix, split)


@pytest.mark.parametrize("most_tried", [0, 25])
@every_topology
def test_so_do_those_of_graphs_for_which_a_search_takes_long(
    name, most_tried, monkeypatch
):
    for module in (matchings, _colouring):
        monkeypatch.setattr(module, "MOST_TRIED", most_tried)
    for matrix in MANY[name].rounds:
        check_messages(matrix, permutations(sparse(matrix)))


@every_topology
def test_workers_without_a_message_send_nothing_to_others(name, monkeypatch):
    for module in (matchings, _colouring):
        monkeypatch.setattr(module, "MOST_TRIED", 0)
    for matrix in MANY[name].rounds:
        for matching in permutations(sparse(matrix)):
            for sender, receiver in matching.pairs:
                if sender != receiver and not matching.weights[receiver]:
                    assert matching.weights[sender], "it could send to itself"


def by_recursion(matrix: np.ndarray) -> list[tuple[int, ...]]:
    """One matching after another, near receivers first: the definition."""
    workers = len(matrix)
    counts = np.where(np.eye(workers), 0, matrix != 0)

    def lacking() -> tuple[np.ndarray, np.ndarray]:
        most = max(counts.sum(axis=0).max(), counts.sum(axis=1).max())
        return most - counts.sum(axis=0), most - counts.sum(axis=1)

    counts += np.diag(np.minimum(*lacking()))
    to_send, to_receive = (np.repeat(range(workers), more) for more in lacking())
    np.add.at(counts, (to_receive, to_send), 1)
    found = []
    while counts.any():
        sender_of: dict[int, int] = {}

        def place(sender: int, tried: set[int], sender_of=sender_of) -> bool:
            for hop in range(workers):
                receiver = (sender + hop) % workers
                if counts[receiver, sender] and receiver not in tried:
                    tried.add(receiver)
                    present = sender_of.get(receiver)
                    if present is None or place(present, tried):
                        sender_of[receiver] = sender
                        return True
            return False

        assert all(place(sender, set()) for sender in range(workers))
        counts[list(sender_of), list(sender_of.values())] -= 1
        found.append(tuple(sorted(sender_of, key=lambda to: sender_of[to])))
    return found


@every_topology
def test_near_receivers_come_first(name):
    """The order decides the bits of sums, so it must stay as it is."""
    for matrix, split in zip(MANY[name].rounds, MANY[name].matchings, strict=True):
        receivers = [tuple(matching.receivers.tolist()) for matching in split]
        assert receivers == by_recursion(matrix)


def test_workers_without_neighbours_send_nothing():
    assert permutations(sparse(np.eye(3))) == ()
