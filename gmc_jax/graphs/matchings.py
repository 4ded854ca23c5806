"""Matchings: the messages of a round as permutations of the workers."""

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Matrix: TypeAlias = NDArray[np.float64]
"""Weights [receiver, sender]."""


class Matching(NamedTuple):
    """One message of every worker: to another worker, or to itself, which is free.

    Attributes:
      pairs: (sender, receiver) of each message, a permutation of the workers.
      weights: [workers], the weight that each receiver gives to its message.
    """

    pairs: tuple[tuple[int, int], ...]
    weights: tuple[float, ...]


def permutations(matrix: Matrix) -> tuple[Matching, ...]:
    """Splits the messages of a round into as few permutations as possible.

    Messages are the edges of a bipartite graph of senders and receivers. Messages of
    weight 0 are added until every worker sends and receives as many as the busiest one.
    A worker sends an added message to itself where it can. The graph is then regular,
    so it splits into perfect matchings (Koenig). Each of them is a permutation.

    Args:
      matrix: the weights of the round, [receiver, sender].

    Returns:
      As many matchings as the busiest worker sends or receives messages.
    """
    edges = matrix != 0
    np.fill_diagonal(edges, False)
    remaining = _fill_up(edges.astype(int))
    matchings = []
    while remaining.any():
        receiver_of = _perfect_matching(remaining)
        weights = np.zeros(len(matrix))
        for sender, receiver in enumerate(receiver_of):
            remaining[receiver, sender] -= 1
            # Added messages, and those of earlier matchings, have weight 0.
            if edges[receiver, sender]:
                weights[receiver] = matrix[receiver, sender]
                edges[receiver, sender] = False
        pairs = tuple(enumerate(receiver_of))
        matchings.append(Matching(pairs, tuple(weights.tolist())))
    return tuple(matchings)


def _fill_up(counts: NDArray[np.int_]) -> NDArray[np.int_]:
    """Adds messages until every worker sends and receives as many as the busiest."""
    most = max(counts.sum(axis=0).max(), counts.sum(axis=1).max())
    idle = np.minimum(most - counts.sum(axis=0), most - counts.sum(axis=1))
    counts = counts + np.diag(idle)
    to_send = np.repeat(range(len(counts)), most - counts.sum(axis=0))
    to_receive = np.repeat(range(len(counts)), most - counts.sum(axis=1))
    np.add.at(counts, (to_receive, to_send), 1)
    return counts


def _perfect_matching(counts: NDArray[np.int_]) -> tuple[int, ...]:
    """Finds a receiver for every sender by augmenting paths, near receivers first."""
    workers = len(counts)
    sender_of: dict[int, int] = {}

    def place(sender: int, tried: set[int]) -> bool:
        for hop in range(workers):
            receiver = (sender + hop) % workers
            if counts[receiver, sender] and receiver not in tried:
                tried.add(receiver)
                if receiver not in sender_of or place(sender_of[receiver], tried):
                    sender_of[receiver] = sender
                    return True
        return False

    for sender in range(workers):
        place(sender, set())
    return tuple(sorted(sender_of, key=lambda receiver: sender_of[receiver]))
