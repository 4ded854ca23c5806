"""Factories of topologies: rings, tori, exponential graphs, and graphs of your own."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gmc_jax.graphs._matcha import (
    best_probabilities,
    best_weight,
    laplacian,
    matchings_of,
)
from gmc_jax.graphs.random_topology import RandomTopology
from gmc_jax.graphs.sparse_matrix import SparseMatrix, from_weights
from gmc_jax.graphs.topology import Topology, check_topology
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr

_ROWS = 256  # Of a matrix, so many rows at once are dense.


@runtime_checkable
class Graph(Protocol):
    """A graph of networkx, or any object with the same `adjacency`."""

    def adjacency(self) -> Iterable[tuple[Hashable, Mapping[Hashable, object]]]:
        """Yields every node with its neighbours."""
        ...


@call_repr
def complete(workers: int) -> Topology:
    """Makes a topology in which all receive from all: a round is the exact mean.

    Args:
      workers: the number of workers, at least 1.

    Returns:
      One round; `workers` - 1 messages a worker. They are as many operations in the
      compiled step, so for more than a few workers take the channel `exact`, which
      computes the same mean.

    Raises:
      ValueError: if `workers` is not a whole number of at least 1.
    """
    checks.positive_int(workers=workers)
    everyone = np.arange(workers, dtype=np.int32)
    senders, receivers = np.repeat(everyone, workers), np.tile(everyone, workers)
    weights = np.full(workers**2, 1 / workers)
    return Topology.of_weights([SparseMatrix(workers, senders, receivers, weights)])


@call_repr
def ring(workers: int, self_weight: float | None = None) -> Topology:
    """Makes a ring of workers; each receives from the ones before and after it.

    Args:
      workers: the number of workers, at least 1.
      self_weight: the weight of a worker's own values, in [0, 1]; its neighbours share
        the rest. None for equal weights: 1/3, or 1/2 with two workers. The smallest
        eigenvalue is then -1/3 for every even number of workers from 4 on. This is too
        small for `d2`: use `lazy(ring(workers))`.

    Returns:
      One round; two messages a worker, or one with two workers.

    Raises:
      ValueError: if `workers` is not a whole number of at least 1, or `self_weight`
        does not lie in [0, 1].
    """
    checks.positive_int(workers=workers)
    if self_weight is not None:
        checks.known(self_weight=self_weight)
        checks.proportion(self_weight=self_weight)
    hops = np.unique(np.array([1, workers - 1]) % workers)
    hops = hops[hops != 0]
    own = 1 / (1 + len(hops)) if self_weight is None or not len(hops) else self_weight
    shares = [own, *[(1 - own) / max(1, len(hops))] * len(hops)]
    everyone = np.arange(workers)[:, None]
    receivers = (everyone + np.array([0, *hops])) % workers
    return Topology.of_weights([from_weights(workers, everyone, receivers, shares)])


@call_repr
def torus(rows: int, columns: int) -> Topology:
    """Makes a grid of workers with joined edges; each receives from four neighbours.

    Args:
      rows: the number of rows, at least 1.
      columns: the number of columns, at least 1. Worker `columns * i + j` stands in row
        i and column j.

    Returns:
      One round; four messages a worker, fewer where neighbours coincide. A worker and
      each of its neighbours have the same weight.

    Raises:
      ValueError: if `rows` or `columns` is not a whole number of at least 1.
    """
    checks.positive_int(rows=rows, columns=columns)
    workers = rows * columns
    row, column = np.divmod(np.arange(workers)[:, None], columns)
    down, right = np.array([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]).T
    receivers = (row + down) % rows * columns + (column + right) % columns
    # Neighbours may coincide.
    edges = np.unique(np.arange(workers)[:, None] * workers + receivers)
    senders, receivers = np.divmod(edges, workers)
    share = 1 / (len(edges) // workers)
    return Topology.of_weights([from_weights(workers, senders, receivers, share)])


@call_repr
def exponential(workers: int) -> Topology:
    """Makes a circle of workers; each receives from those 1, 2, 4, ... places before.

    The graph is directed. It is doubly stochastic all the same, since every worker
    receives from the same distances.

    Args:
      workers: the number of workers, at least 1.

    Returns:
      One round; log2(workers) messages a worker, rounded up, all of equal weight.

    Raises:
      ValueError: if `workers` is not a whole number of at least 1.
    """
    checks.positive_int(workers=workers)
    hops = _powers(workers, 2)
    return Topology.of_weights([_circle(workers, [0, *hops])])


@call_repr
def one_peer_exponential(workers: int) -> Topology:
    """Makes a circle of workers; each receives from one other worker in a round.

    In the first round it is the worker 1 place before, in the next round the one 2
    places before, then 4, and so on.

    Args:
      workers: the number of workers, at least 1.

    Returns:
      log2(workers) rounds, rounded up; one message a worker in each. If the number of
      workers is a power of two, all rounds together give the exact mean, in any order.

    Raises:
      ValueError: if `workers` is not a whole number of at least 1.

    References:
      Assran, Loizou, Ballas and Rabbat, "Stochastic Gradient Push", ICML 2019.
    """
    return rotating_exponential(workers, peers=1)


@call_repr
def rotating_exponential(workers: int, peers: int) -> Topology:
    """Makes a circle of workers; each receives from `peers` others in a round.

    In round i = 0, 1, ... they are the workers j (peers + 1)^i places before it, for
    j = 1 to `peers`.

    Args:
      workers: the number of workers, at least 1.
      peers: how many messages each worker sends in a round, at least 1.

    Returns:
      One round for each i with (peers + 1)^i < `workers`. If the number of workers is a
      power of peers + 1, all rounds together give the exact mean, in any order.

    Raises:
      ValueError: if `workers` or `peers` is not a whole number of at least 1.

    References:
      Assran, Loizou, Ballas and Rabbat, "Stochastic Gradient Push", ICML 2019, and the
      authors' code.
    """
    checks.positive_int(workers=workers, peers=peers)
    hops = _powers(workers, peers + 1) or [0]
    return Topology.of_weights(
        _circle(workers, [hop * j for j in range(peers + 1)]) for hop in hops
    )


@call_repr
def random_matchings(workers: int, rounds: int = 16, seed: int = 0) -> Topology:
    """Makes rounds of random pairs of workers; the two of a pair average.

    Args:
      workers: the number of workers, at least 1. If it is odd, one worker is without a
        partner in each round.
      rounds: how many rounds are drawn before they repeat, at least 1. Each of them is
        compiled.
      seed: the seed of the draws, at least 0.

    Returns:
      Symmetric rounds; one message in each from every worker with a partner.

    Raises:
      ValueError: if `workers` or `rounds` is not a whole number of at least 1, or
        `seed` not one of at least 0.
    """
    checks.positive_int(workers=workers, rounds=rounds)
    checks.nonnegative_int(seed=seed)
    draw = np.random.default_rng(seed)
    return Topology.of_weights(_pairs(draw.permutation(workers)) for _ in range(rounds))


@call_repr
def matcha(
    adjacency: ArrayLike | Graph, budget: float, seed: int = 0
) -> RandomTopology:
    """Makes matchings of a graph that are drawn at random, MATCHA's.

    The edges are split into M matchings, whose pairs can all average at once. In a
    round each matching is active with a probability p_j of its own, and
    W = I - alpha * sum over active j of L_j, with L_j the Laplacian of matching j. Both
    are solved for, with SciPy:

        p      maximises lambda_2 of sum_j p_j L_j, where sum_j p_j <= budget * M
        alpha  minimises the norm of E[W'W] - J

    So matchings that connect the graph are active often, and others seldom. Matchings
    with the probability 0 are left out.

    Args:
      adjacency: [workers, workers], symmetric, not zero where two workers are
        neighbours; or a networkx graph, whose nodes are the workers in its order. It
        must be connected.
      budget: the share of matchings that are active, on average, in (0, 1]. With 1 all
        are in every round, and W is fixed.
      seed: of the draws.

    Returns:
      A topology for `random_gossip` and the method `matcha`.

    Raises:
      ImportError: if SciPy is not installed.
      TypeError: if `adjacency` is neither a matrix nor a graph.
      ValueError: if the matrix is not square, symmetric and of a connected graph, or
        `budget` is not in (0, 1].

    References:
      Wang, Sahu, Yang, Joshi and Kar, "MATCHA: Speeding Up Decentralized SGD via
      Matching Decomposition Sampling", 2019.
    """
    checks.known(budget=budget)
    checks.fraction(budget=budget)
    checks.known(seed=seed)
    checks.seed(seed=seed)
    edges = _undirected(adjacency)
    workers, matchings = len(edges), matchings_of(edges)
    if apart := from_adjacency(edges).cannot_reach_all:
        raise ValueError(
            "`adjacency` must be of a connected graph, got workers that do not reach "
            f"all others: {checks.shown(list(apart))}. Add edges from these workers."
        )
    if not matchings:
        return RandomTopology(workers, (), (), 0.0, seed)
    laplacians = np.stack([laplacian(workers, pairs) for pairs in matchings])
    chances = best_probabilities(laplacians, float(budget))
    used = np.flatnonzero(chances)
    return RandomTopology(
        workers,
        tuple(matchings[place] for place in used),
        tuple(chances[used].tolist()),
        best_weight(laplacians, chances),
        seed,
    )


@call_repr
def lazy(topology: Topology, share: float = 0.5) -> Topology:
    """Lets workers keep a share of their own values: W' = share * I + (1 - share) * W.

    Args:
      topology: any topology, with the matrix W in a round.
      share: the share, in [0, 1]. With one half no eigenvalue of a symmetric topology
        is negative.

    Returns:
      A topology of the same messages with other weights.

    Raises:
      TypeError: if `topology` is no topology.
      ValueError: if `share` does not lie in [0, 1].
    """
    check_topology(topology)
    checks.known(share=share)
    checks.proportion(share=share)
    everyone = np.arange(topology.workers)

    def keep(matrix: SparseMatrix) -> SparseMatrix:
        others = matrix.without_diagonal()
        own = share + (1 - share) * matrix.diagonal()
        return from_weights(
            topology.workers,
            np.concatenate([everyone, others.senders]),
            np.concatenate([everyone, others.receivers]),
            np.concatenate([own, (1 - share) * others.weights]),
        )

    return Topology.of_weights(map(keep, topology.mixing))


@call_repr
def from_adjacency(adjacency: ArrayLike | Graph) -> Topology:
    """Makes the topology of an undirected graph, with Metropolis-Hastings weights.

    With n_i the number of neighbours of worker i, workers i and j that are neighbours
    weigh each other by

        w_ij = 1 / (1 + max(n_i, n_j)),

    and each weighs itself by the rest.

    Args:
      adjacency: [workers, workers], symmetric, not zero where two workers are
        neighbours; or a networkx graph, whose nodes are the workers in its order.

    Returns:
      One symmetric, doubly stochastic round.

    Raises:
      TypeError: if `adjacency` is neither a matrix nor a graph.
      ValueError: if the matrix is not square and symmetric.
    """
    edges = _undirected(adjacency)
    workers, degrees = len(edges), edges.sum(axis=0)
    own = np.empty(workers)
    for first in range(0, workers, _ROWS):
        rows = slice(first, first + _ROWS)
        weights = edges[rows] / (1 + np.maximum(degrees[rows, None], degrees))
        own[rows] = 1 - weights.sum(axis=1)
    senders, receivers = np.nonzero(edges)
    weights = 1 / (1 + np.maximum(degrees[senders], degrees[receivers]))
    everyone = np.arange(workers)
    return Topology.of_weights(
        [
            from_weights(
                workers,
                np.concatenate([everyone, senders]),
                np.concatenate([everyone, receivers]),
                np.concatenate([own, weights]),
            )
        ]
    )


@call_repr
def pushing(adjacency: ArrayLike | Graph) -> Topology:
    """Makes the topology of a directed graph, whose senders split their values equally.

    A worker gives the same share to itself and to each of its receivers. So columns sum
    to 1. In general rows do not. With such weights only push-sum (`sgp`) computes the
    mean.

    Args:
      adjacency: [receiver, sender], not zero where the receiver gets the sender's
        message; or a networkx graph, whose edges lead from senders to receivers.

    Returns:
      One round that keeps the mean.

    Raises:
      TypeError: if `adjacency` is neither a matrix nor a graph.
      ValueError: if the matrix is not square.
    """
    edges = _edges_of(adjacency)
    np.fill_diagonal(edges, True)
    senders, receivers = np.nonzero(np.ascontiguousarray(edges.T))
    shares = 1 / edges.sum(axis=0)
    matrix = from_weights(len(edges), senders, receivers, shares[senders])
    return Topology.of_weights([matrix])


def _undirected(adjacency: ArrayLike | Graph) -> NDArray[np.bool_]:
    """Which workers are neighbours, [workers, workers]."""
    edges = _edges_of(adjacency)
    if not np.array_equal(edges, edges.T):
        raise ValueError(
            "`adjacency` must be symmetric, since neighbours average with each other, "
            "got edges in one direction only. For a directed graph use "
            "`topologies.pushing(adjacency)`, with `sgp`."
        )
    return edges


def _edges_of(adjacency: ArrayLike | Graph) -> NDArray[np.bool_]:
    """Which workers receive from which others, [receiver, sender]."""
    if isinstance(adjacency, Graph):
        sends_to = {node: list(others) for node, others in adjacency.adjacency()}
        place = {node: index for index, node in enumerate(sends_to)}
        edges = np.zeros((len(place), len(place)), bool)
        for node, others in sends_to.items():
            edges[[place[other] for other in others if other in place], place[node]] = 1
    else:
        try:
            edges = np.asarray(np.asarray(adjacency) != 0)
        except (TypeError, ValueError):
            raise TypeError(
                "`adjacency` must be a matrix or a graph, got "
                f"{checks.shown(adjacency)}. Pass a square array, or a networkx graph."
            ) from None
    if edges.ndim != 2 or edges.shape[0] != edges.shape[1] or not edges.size:
        raise ValueError(
            "`adjacency` must be a square matrix with a row and a column for every "
            f"worker, got the shape {edges.shape}."
        )
    edges = edges.copy()
    np.fill_diagonal(edges, False)
    return edges


def _circle(workers: int, hops: Sequence[int]) -> SparseMatrix:
    """Each worker gives the same weight to those 0, 1, ... `hops` places before it."""
    places, times = np.unique(np.array(hops) % workers, return_counts=True)
    senders = np.arange(workers)[:, None]
    receivers = (senders + places) % workers
    return from_weights(workers, senders, receivers, times / len(hops))


def _pairs(order: NDArray[np.integer]) -> SparseMatrix:
    """Neighbours in an order average; the last of an odd number keeps its values."""
    workers = len(order)
    partner = np.arange(workers)
    ones, others = order[0 : workers - 1 : 2], order[1::2]
    partner[ones], partner[others] = others, ones
    everyone = np.arange(workers)
    alone = partner == everyone
    return from_weights(
        workers,
        np.concatenate([everyone, everyone[~alone]]),
        np.concatenate([everyone, partner[~alone]]),
        np.concatenate([np.where(alone, 1.0, 0.5), np.full((~alone).sum(), 0.5)]),
    )


def _powers(workers: int, base: int) -> list[int]:
    return [base**power for power in range(workers) if base**power < workers]
