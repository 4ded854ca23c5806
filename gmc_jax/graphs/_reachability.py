"""Who reaches whom, perhaps through others, by breadth-first searches."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gmc_jax.graphs.sparse_matrix import SparseMatrix


class Graph(NamedTuple):
    """A directed graph of nodes 0, 1, ...

    Attributes:
      starts: [nodes + 1], where the edges of each node begin in `ends`.
      ends: [edges], the nodes that edges lead to.
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.integer]

    @property
    def nodes(self) -> int:
        """The number of nodes."""
        return len(self.starts) - 1

    def levels(self, first: int, passed: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The edges of the shortest path from a node to each other, -1 without a path.

        Args:
          first: the node.
          passed: [nodes], nodes that paths must not touch; those that are reached are
            added to them.
        """
        levels = np.full(self.nodes, -1)
        nodes, level = np.array([first]), 0
        while nodes.size:
            passed[nodes], levels[nodes] = True, level
            if passed.all():
                break
            nodes, level = self._next(nodes), level + 1
            nodes = np.unique(nodes[~passed[nodes]])
        return levels

    def reached_from(self, first: int) -> NDArray[np.bool_]:
        """The nodes to which a path leads, the first one included, [nodes]."""
        return self.levels(first, np.zeros(self.nodes, bool)) >= 0

    def root(self) -> int | None:
        """A node from which paths lead to all others, or None.

        Each search starts at a node that no search before it has reached. So a node
        that reaches all can only be one of the last search, and its start is one, too.
        """
        passed, last = np.zeros(self.nodes, bool), 0
        for node in range(self.nodes):
            if not passed[node]:
                last = node
                self.levels(node, passed)
        return last if self.reached_from(last).all() else None

    def _next(self, nodes: NDArray[np.integer]) -> NDArray[np.integer]:
        """Where the edges of some nodes lead."""
        starts = self.starts[nodes]
        counts = self.starts[nodes + 1] - starts
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return self.ends[np.repeat(starts, counts) + within]


def not_reaching_all(rounds: Sequence[SparseMatrix]) -> tuple[int, ...]:
    """The workers whose messages do not reach all others, in any number of rounds."""
    workers = rounds[0].workers
    if any(matrix.is_full for matrix in rounds):
        return ()
    senders = np.concatenate([matrix.senders for matrix in rounds])
    receivers = np.concatenate([matrix.receivers for matrix in rounds])
    root = _graph(workers, senders, receivers).root()
    if root is None:
        return tuple(range(workers))
    reaching = _graph(workers, receivers, senders).reached_from(root)
    return tuple(np.flatnonzero(~reaching).tolist())


def contracts(rounds: Sequence[SparseMatrix]) -> bool:
    """Whether cycles of all rounds lead all workers to agree.

    The columns of the rounds must sum to 1. Their product P is then the matrix of a
    Markov chain. It has no eigenvalue of modulus 1 besides the simple 1, if all states
    lead to one class of states, and this has the period 1 (Perron and Frobenius).

    A node of the graph is a worker before one of the R rounds. So cycles of P are R
    times as long here, and the period must be R.
    """
    workers, count = rounds[0].workers, len(rounds)
    senders, receivers = [], []
    for now, matrix in enumerate(rounds):
        senders.append(matrix.senders + now * workers)
        receivers.append(matrix.receivers + (now + 1) % count * workers)
    before, after = np.concatenate(senders), np.concatenate(receivers)
    nodes = count * workers
    last = _graph(nodes, after, before).root()
    if last is None:
        return False
    levels = _graph(nodes, before, after).levels(last, np.zeros(nodes, bool))
    within = levels[before] >= 0
    steps = levels[before[within]] + 1 - levels[after[within]]
    return bool(np.gcd.reduce(steps) == count)


def _graph(
    nodes: int, origins: NDArray[np.integer], ends: NDArray[np.integer]
) -> Graph:
    starts = np.zeros(nodes + 1, np.int64)
    np.cumsum(np.bincount(origins, minlength=nodes), out=starts[1:])
    if (origins[1:] < origins[:-1]).any():
        # NumPy sorts integers of 16 bits in linear time.
        narrow = origins.astype(np.uint16) if nodes <= 2**16 else origins
        ends = ends[np.argsort(narrow, kind="stable")]
    return Graph(starts, ends)
