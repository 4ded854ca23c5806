"""Matchings: the messages of a round as permutations of the workers."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gmc_jax.graphs._colouring import (
    MOST_TRIED,
    alternating_colours,
    near_colours,
)
from gmc_jax.graphs.sparse_matrix import Indices, SparseMatrix


class Matching(NamedTuple):
    """One message of every worker: to another worker, or to itself, which is free.

    Attributes:
      receivers: [workers], who receives the message of each sender; a permutation.
      weights: [workers], the weight that each receiver gives to its message.
    """

    receivers: Indices
    weights: NDArray[np.float64]

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """The (sender, receiver) of each message."""
        return tuple(enumerate(self.receivers.tolist()))


def busiest(matrix: SparseMatrix) -> int:
    """How many messages the busiest worker sends or receives in a round."""
    return int(max(counts.max() for counts in _counts(matrix)))


def permutations(matrix: SparseMatrix) -> tuple[Matching, ...]:
    """Splits the messages of a round into as few permutations as possible.

    Messages are the edges of a bipartite graph of senders and receivers. Messages of
    weight 0 are added until every worker sends and receives as many as the busiest one.
    A worker sends an added message to itself where it can. The graph is then regular,
    so it splits into perfect matchings (Koenig). Each of them is a permutation.

    One matching after another is found by augmenting paths, with near receivers first
    (`near_colours`). Where that takes long, as for a star of 2,000 workers or a
    hypercube of 4,096, all messages are coloured at once (`alternating_colours`), and
    come in another order.

    Args:
      matrix: the weights of the round.

    Returns:
      As many matchings as the busiest worker sends or receives messages.
    """
    messages, (sent, received) = matrix.without_diagonal(), _counts(matrix)
    workers, most = matrix.workers, int(max(sent.max(), received.max()))
    filled = _fill_up(messages, sent, received)
    colours = None if filled is None else near_colours(filled, most)
    if filled is None or colours is None:
        filled, colours = messages, alternating_colours(messages, most)
    receivers = np.full((most, workers), -1, np.int32)
    weights = np.zeros((most, workers))
    receivers[colours, filled.senders] = filled.receivers
    weights[colours, filled.receivers] = filled.weights
    if len(filled.weights) < receivers.size:
        for row in receivers:
            _complete(row)
    return tuple(map(Matching, receivers, weights))


def _counts(matrix: SparseMatrix) -> tuple[Indices, Indices]:
    """How many messages each worker sends, and how many it receives."""
    own = matrix.diagonal() != 0
    sent, received = (
        np.bincount(ends, minlength=matrix.workers).astype(np.int32) - own
        for ends in (matrix.senders, matrix.receivers)
    )
    return sent, received


def _fill_up(
    messages: SparseMatrix, sent: Indices, received: Indices
) -> SparseMatrix | None:
    """Adds messages until every worker sends and receives as many as the busiest.

    Messages of a sender come in the order of their receivers, beginning with itself.

    Returns:
      The messages, or None if so many would be added that a search takes long.
    """
    workers, most = messages.workers, max(sent.max(), received.max())
    sender, receiver, weight = messages[1:]
    if sent.min() < most or received.min() < most:
        if workers * most > MOST_TRIED:
            return None
        everyone = np.arange(workers, dtype=np.int32)
        idle = most - np.maximum(sent, received)
        to_itself = np.repeat(everyone, idle)
        to_send, to_receive = (
            np.repeat(everyone, most - done - idle) for done in (sent, received)
        )
        sender = np.concatenate([sender, to_itself, to_send])
        receiver = np.concatenate([receiver, to_itself, to_receive])
        weight = np.concatenate([weight, np.zeros(len(sender) - len(weight))])
    # Of messages with the same ends the one with the weight comes first.
    places = receiver - sender
    places[places < 0] += workers
    order = np.argsort(sender * np.int64(workers) + places, kind="stable")
    return SparseMatrix(workers, sender[order], receiver[order], weight[order])


def _complete(receivers: Indices) -> None:
    """Lets idle senders, at -1, send to themselves, or else to idle receivers."""
    is_free = np.ones(len(receivers), bool)
    is_free[receivers[receivers >= 0]] = False
    both = np.flatnonzero(is_free & (receivers < 0))
    receivers[both], is_free[both] = both, False
    receivers[receivers < 0] = np.flatnonzero(is_free)
