"""A round of messages, taken apart into permutations of the workers, NumPy alone."""

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Matrix: TypeAlias = NDArray[np.float64]
"""Weights [receiver, sender]."""


class Matching(NamedTuple):
    """One message of every worker to another one, or to itself, which is free.

    Attributes:
      pairs: (sender, receiver), a permutation of the workers.
      weights: [workers], the weight with which each receiver takes what arrives.
    """

    pairs: tuple[tuple[int, int], ...]
    weights: tuple[float, ...]


def permutations(matrix: Matrix) -> tuple[Matching, ...]:
    """As few permutations as the busiest worker has messages.

    Messages are the edges of a graph between senders and receivers. Filled up with
    messages of weight 0, to oneself where possible, until all have as many, it falls
    apart into perfect matchings (Koenig), each of which is a permutation.
    """
    edges = matrix != 0
    np.fill_diagonal(edges, False)
    left = _fill_up(edges.astype(int))
    matchings = []
    while left.any():
        receiver_of = _perfect_matching(left)
        weights = np.zeros(len(matrix))
        for sender, receiver in enumerate(receiver_of):
            left[receiver, sender] -= 1
            if edges[receiver, sender]:  # Else it fills up, or was sent before.
                weights[receiver] = matrix[receiver, sender]
                edges[receiver, sender] = False
        pairs = tuple(enumerate(receiver_of))
        matchings.append(Matching(pairs, tuple(weights.tolist())))
    return tuple(matchings)


def _fill_up(counts: NDArray[np.int_]) -> NDArray[np.int_]:
    """As many messages to and from everybody as the busiest worker has."""
    most = max(counts.sum(axis=0).max(), counts.sum(axis=1).max())
    idle = np.minimum(most - counts.sum(axis=0), most - counts.sum(axis=1))
    counts = counts + np.diag(idle)
    to_send = np.repeat(range(len(counts)), most - counts.sum(axis=0))
    to_hear = np.repeat(range(len(counts)), most - counts.sum(axis=1))
    np.add.at(counts, (to_hear, to_send), 1)
    return counts


def _perfect_matching(counts: NDArray[np.int_]) -> tuple[int, ...]:
    """A receiver for every sender, by augmenting paths; the nearest ones first."""
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
