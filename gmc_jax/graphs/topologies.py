"""Who hears whom: rings, tori, exponential graphs, any graph; NumPy alone."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gmc_jax.graphs.matchings import Matrix
from gmc_jax.graphs.topology import Topology, check_topology
from gmc_jax.utils import checks
from gmc_jax.utils.described import described


@runtime_checkable
class Graph(Protocol):
    """An undirected graph of networkx, or one that walks like it."""

    def adjacency(self) -> Iterable[tuple[Hashable, Mapping[Hashable, object]]]:
        """Every node with its neighbours."""
        ...


@described
def complete(workers: int) -> Topology:
    """All workers hear all: one round is the exact mean.

    Args:
      workers: their number, at least 1, here and below.
    """
    checks.positive_int(workers=workers)
    return Topology((np.full((workers, workers), 1 / workers),))


@described
def ring(workers: int, self_weight: float | None = None) -> Topology:
    """Workers in a circle hear the one before and the one behind.

    Args:
      workers: their number.
      self_weight: what a worker gives its own, in [0, 1]; the neighbours share the
        rest. None for equal weights: 1/3, or 1/2 of two workers. With them the smallest
        eigenvalue is -1/3 wherever the number of workers is even and at least 4, which
        is too small for `d2`: use `lazy(ring(workers))`.

    Returns:
      One round; two messages a worker, or one with two workers.

    Raises:
      ValueError: if `self_weight` does not lie in [0, 1].
    """
    checks.positive_int(workers=workers)
    if self_weight is not None:
        checks.known(self_weight=self_weight)
        checks.proportion(self_weight=self_weight)
    moves = _shift(workers, 1) + _shift(workers, -1)
    np.fill_diagonal(moves, 0)
    heard = moves > 0
    others = heard.sum(axis=1).max()
    own = 1 / (1 + others) if self_weight is None or not others else self_weight
    shares = heard * ((1 - own) / max(1, others))
    return Topology((shares + own * np.eye(workers),))


@described
def torus(rows: int, columns: int) -> Topology:
    """Workers in a grid that closes on itself hear their four neighbours.

    Args:
      rows: at least 1.
      columns: at least 1; worker `columns * i + j` stands in row i and column j.

    Returns:
      One round; four messages a worker, fewer where neighbours coincide. A worker and
      its neighbours weigh the same.
    """
    checks.positive_int(rows=rows, columns=columns)
    steps = [(1, 0), (-1, 0), (0, 1), (0, -1)]
    moves = [np.kron(_shift(rows, i), _shift(columns, j)) for i, j in steps]
    heard = np.sum([np.eye(rows * columns), *moves], axis=0) > 0
    return Topology((heard / heard.sum(axis=1, keepdims=True),))


@described
def exponential(workers: int) -> Topology:
    """Workers hear those 1, 2, 4, ... before them in the circle, all in one round.

    Directed, but doubly stochastic: who hears whom is the same all round the circle.

    Args:
      workers: their number.

    Returns:
      One round; log2(workers) messages a worker, rounded up, all of equal weight.
    """
    checks.positive_int(workers=workers)
    hops = _powers(workers, 2)
    moves = [np.eye(workers), *(_shift(workers, hop) for hop in hops)]
    return Topology((np.mean(moves, axis=0),))


@described
def one_peer_exponential(workers: int) -> Topology:
    """Workers hear one other a round: the one 1 before them, then 2, 4, and so on.

    Args:
      workers: their number.

    Returns:
      log2(workers) rounds, rounded up; one message a worker in each. Where the number
      of workers is a power of two, all rounds together are the exact mean, in any
      order.

    References:
      Assran, Loizou, Ballas and Rabbat, "Stochastic Gradient Push", ICML 2019.
    """
    return rotating_exponential(workers, peers=1)


@described
def rotating_exponential(workers: int, peers: int) -> Topology:
    """Workers hear some others a round, further away from round to round.

    In round i = 0, 1, ... those (peers + 1)^i, ..., peers (peers + 1)^i before them in
    the circle.

    Args:
      workers: their number.
      peers: messages of each worker in a round, at least 1.

    Returns:
      As many rounds as (peers + 1)^i is less than `workers`. Where the number of
      workers is a power of peers + 1, all rounds together are the exact mean, in any
      order.

    References:
      Assran, Loizou, Ballas and Rabbat, "Stochastic Gradient Push", ICML 2019, and the
      authors' code.
    """
    checks.positive_int(workers=workers, peers=peers)
    rounds = [
        np.mean([_shift(workers, hop * j) for j in range(peers + 1)], axis=0)
        for hop in _powers(workers, peers + 1)
    ]
    return Topology(tuple(rounds) or (np.eye(workers),))


@described
def random_matchings(workers: int, rounds: int = 16, seed: int = 0) -> Topology:
    """Workers meet in pairs drawn at random, and halve their differences.

    Args:
      workers: their number; if it is odd, one of them rests in each round.
      rounds: how many are drawn before they repeat. Each is compiled.
      seed: of the draws, at least 0.

    Returns:
      Symmetric rounds; one message a worker in each.

    Raises:
      ValueError: if `workers` or `rounds` is not a whole number of at least 1.
    """
    checks.positive_int(workers=workers, rounds=rounds)
    checks.nonnegative_int(seed=seed)
    draw = np.random.default_rng(seed)
    matrices = []
    for _ in range(rounds):
        matrix = np.eye(workers)
        order = draw.permutation(workers)
        for one, other in zip(order[::2], order[1::2], strict=False):
            matrix[np.ix_([one, other], [one, other])] = 0.5
        matrices.append(matrix)
    return Topology(tuple(matrices))


@described
def lazy(topology: Topology, share: float = 0.5) -> Topology:
    """Workers keep a share of their own: share * I + (1 - share) * W in each round.

    Args:
      topology: any.
      share: in [0, 1]; with one half no eigenvalue of a symmetric topology is negative.

    Returns:
      The same messages with other weights.

    Raises:
      TypeError: if `topology` is no topology.
      ValueError: if `share` does not lie in [0, 1].
    """
    check_topology(topology)
    checks.known(share=share)
    checks.proportion(share=share)
    own = np.eye(topology.workers)
    return Topology(tuple(share * own + (1 - share) * w for w in topology.rounds))


@described
def from_adjacency(adjacency: ArrayLike | Graph) -> Topology:
    """The topology of an undirected graph, with the weights of Metropolis and Hastings.

    A worker weighs a neighbour by 1 / (1 + the larger of their numbers of neighbours),
    and itself by the rest.

    Args:
      adjacency: [workers, workers], symmetric, not zero where two workers hear each
        other; or a networkx graph, whose nodes are the workers in its order.

    Returns:
      One symmetric, doubly stochastic round.

    Raises:
      ValueError: if the matrix is not square and symmetric.
    """
    edges = _edges_of(adjacency)
    if not np.array_equal(edges, edges.T):
        raise ValueError(
            "`adjacency` must be symmetric, since workers average with each other. For "
            "a directed graph use `pushing(adjacency)`, with `sgp`."
        )
    degrees = edges.sum(axis=0)
    matrix = edges / (1 + np.maximum(degrees[:, None], degrees))
    return Topology((matrix + np.diag(1 - matrix.sum(axis=1)),))


@described
def pushing(adjacency: ArrayLike | Graph) -> Topology:
    """The topology of a directed graph, whose workers share out all that they have.

    A worker gives itself and each that hears it the same share. Columns sum to 1, rows
    as a rule do not, so that only push-sum makes means of it (`sgp`).

    Args:
      adjacency: [receiver, sender], not zero where the sender is heard; or a networkx
        graph, whose edges lead from senders to receivers.

    Returns:
      One round that keeps the mean.

    Raises:
      ValueError: if the matrix is not square.
    """
    edges = _edges_of(adjacency)
    np.fill_diagonal(edges, True)
    return Topology((edges / edges.sum(axis=0),))


def _edges_of(adjacency: ArrayLike | Graph) -> NDArray[np.bool_]:
    """Who hears whom, [receiver, sender], nobody itself."""
    if isinstance(adjacency, Graph):
        heard = {node: set(others) for node, others in adjacency.adjacency()}
        edges = np.array([[i in heard[j] for j in heard] for i in heard], bool)
    else:
        try:
            edges = np.asarray(np.asarray(adjacency) != 0)
        except (TypeError, ValueError):
            raise TypeError(
                "`adjacency` must be a matrix or a graph, but is "
                f"{checks.shown(adjacency)}."
            ) from None
    if edges.ndim != 2 or edges.shape[0] != edges.shape[1] or not edges.size:
        raise ValueError(
            "`adjacency` must be a square matrix with a row and a column for every "
            f"worker, but has shape {edges.shape}."
        )
    edges = edges.copy()
    np.fill_diagonal(edges, False)
    return edges


def _shift(workers: int, hop: int) -> Matrix:
    """What everybody gets from the one `hop` places before."""
    return np.roll(np.eye(workers), hop, axis=0)


def _powers(workers: int, base: int) -> list[int]:
    return [base**power for power in range(workers) if base**power < workers]
