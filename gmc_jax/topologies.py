"""Who hears whom: mixing matrices as data, NumPy alone."""

from collections.abc import Hashable, Iterable, Mapping
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gmc_jax import checks

_ROUNDING = 1e-9  # Of sums of weights, in float64.

Matrix: TypeAlias = NDArray[np.float64]
"""Weights [receiver, sender]."""


class Exchange(NamedTuple):
    """One message of every worker to another one, or to itself, which is free.

    Attributes:
      pairs: (sender, receiver), a permutation of the workers.
      weights: [workers], the weight with which each receiver takes what arrives.
    """

    pairs: tuple[tuple[int, int], ...]
    weights: tuple[float, ...]

    @property
    def sends(self) -> bool:
        """Whether anything leaves a worker."""
        return any(sender != receiver for sender, receiver in self.pairs)


class Topology(NamedTuple):
    """Which workers hear each other, with which weights, round after round.

    Attributes:
      rounds: the mixing matrices of the rounds, repeated for ever: entry [i, j] is the
        weight with which worker i takes what worker j has.
    """

    rounds: tuple[Matrix, ...]

    @property
    def workers(self) -> int:
        """Their number."""
        return len(self.rounds[0])

    @property
    def matrix(self) -> Matrix:
        """The product of all rounds, the last one leftmost."""
        product = np.eye(self.workers)
        for matrix in self.rounds:
            product = matrix @ product
        return product

    @property
    def spectral_gap(self) -> float:
        """How fast workers agree: 1 - rho, where a round contracts disagreement by rho.

        rho is the spectral norm of the product of all rounds where nothing is left of
        the mean, to the power of one over their number.
        """
        mean = np.full((self.workers, self.workers), 1 / self.workers)
        contraction = float(np.linalg.norm(self.matrix - mean, 2))
        return 1 - contraction ** (1 / len(self.rounds))

    @property
    def smallest_eigenvalue(self) -> float:
        """The smallest eigenvalue of any round; of a symmetric topology."""
        return min(float(np.linalg.eigvalsh(matrix)[0]) for matrix in self.rounds)

    @property
    def is_symmetric(self) -> bool:
        """Whether workers take of each other what they give."""
        return all(np.allclose(w, w.T, rtol=0, atol=_ROUNDING) for w in self.rounds)

    @property
    def keeps_the_mean(self) -> bool:
        """Whether columns sum to 1: what a worker gives away is all that it had."""
        return all(_ones(matrix.sum(axis=0)) for matrix in self.rounds)

    @property
    def is_doubly_stochastic(self) -> bool:
        """Whether rows sum to 1 as well: workers that agree stay as they are."""
        rows = all(_ones(matrix.sum(axis=1)) for matrix in self.rounds)
        return rows and self.keeps_the_mean

    @property
    def unheard(self) -> tuple[int, ...]:
        """The workers of which somebody never hears, not even through others."""
        heard = np.eye(self.workers) + sum(self.rounds) > 0
        for _ in range(self.workers):
            heard = heard @ heard
        return tuple(np.flatnonzero(~heard.all(axis=0)).tolist())

    @property
    def exchanges(self) -> tuple[tuple[Exchange, ...], ...]:
        """The messages of each round, as permutations of the workers."""
        return tuple(_exchanges(matrix) for matrix in self.rounds)


@runtime_checkable
class Graph(Protocol):
    """An undirected graph of networkx, or one that walks like it."""

    def adjacency(self) -> Iterable[tuple[Hashable, Mapping[Hashable, object]]]:
        """Every node with its neighbours."""
        ...


def complete(workers: int) -> Topology:
    """All workers hear all: one round is the exact mean."""
    checks.positive(workers=workers)
    return Topology((np.full((workers, workers), 1 / workers),))


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
    """
    checks.positive(workers=workers)
    checks.proportion(self_weight=self_weight)
    moves = _shift(workers, 1) + _shift(workers, -1)
    np.fill_diagonal(moves, 0)
    heard = moves > 0
    others = heard.sum(axis=1).max()
    own = 1 / (1 + others) if self_weight is None or not others else self_weight
    shares = heard * ((1 - own) / max(1, others))
    return Topology((shares + own * np.eye(workers),))


def torus(rows: int, columns: int) -> Topology:
    """Workers in a grid that closes on itself hear their four neighbours.

    Args:
      rows: at least 1.
      columns: at least 1; worker `columns * i + j` stands in row i and column j.

    Returns:
      One round; four messages a worker, fewer where neighbours coincide. A worker and
      its neighbours weigh the same.
    """
    checks.positive(rows=rows, columns=columns)
    steps = [(1, 0), (-1, 0), (0, 1), (0, -1)]
    moves = [np.kron(_shift(rows, i), _shift(columns, j)) for i, j in steps]
    heard = np.sum([np.eye(rows * columns), *moves], axis=0) > 0
    return Topology((heard / heard.sum(axis=1, keepdims=True),))


def exponential(workers: int) -> Topology:
    """Workers hear those 1, 2, 4, ... before them in the circle, all in one round.

    Directed, but doubly stochastic: who hears whom is the same all round the circle.

    Args:
      workers: their number.

    Returns:
      One round; log2(workers) messages a worker, rounded up, all of equal weight.
    """
    checks.positive(workers=workers)
    hops = _powers(workers)
    moves = [np.eye(workers), *(_shift(workers, hop) for hop in hops)]
    return Topology((np.mean(moves, axis=0),))


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
    checks.positive(workers=workers)
    alone = np.eye(workers)
    rounds = [(alone + _shift(workers, hop)) / 2 for hop in _powers(workers)]
    return Topology(tuple(rounds) or (alone,))


def random_matchings(workers: int, rounds: int = 16, seed: int = 0) -> Topology:
    """Workers meet in pairs drawn at random, and halve their differences.

    Args:
      workers: their number; if it is odd, one of them rests in each round.
      rounds: how many are drawn before they repeat. Each is compiled.
      seed: of the draws.

    Returns:
      Symmetric rounds; one message a worker in each.
    """
    checks.positive(workers=workers, rounds=rounds)
    draw = np.random.default_rng(seed)
    matrices = []
    for _ in range(rounds):
        matrix = np.eye(workers)
        order = draw.permutation(workers)
        for one, other in zip(order[::2], order[1::2], strict=False):
            matrix[np.ix_([one, other], [one, other])] = 0.5
        matrices.append(matrix)
    return Topology(tuple(matrices))


def lazy(topology: Topology, share: float = 0.5) -> Topology:
    """Workers keep a share of their own: share * I + (1 - share) * W in each round.

    Args:
      topology: any.
      share: in [0, 1]; with one half no eigenvalue of a symmetric topology is negative.

    Returns:
      The same messages with other weights.
    """
    checks.proportion(share=share)
    own = np.eye(topology.workers)
    return Topology(tuple(share * own + (1 - share) * w for w in topology.rounds))


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
    edges = _edges(adjacency)
    if not np.array_equal(edges, edges.T):
        raise ValueError(
            "`adjacency` must be symmetric, since workers average with each other. For "
            "a directed graph use `pushing(adjacency)`, with `sgp`."
        )
    degrees = edges.sum(axis=0)
    matrix = edges / (1 + np.maximum(degrees[:, None], degrees))
    return Topology((matrix + np.diag(1 - matrix.sum(axis=1)),))


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
    edges = _edges(adjacency)
    np.fill_diagonal(edges, True)
    return Topology((edges / edges.sum(axis=0),))


def check_connected(topology: Topology) -> None:
    """Raises ValueError unless all workers hear of all, if only through others."""
    if topology.unheard:
        raise ValueError(
            "`topology` must connect all workers, if only in several rounds, but some "
            f"hear nothing of {list(topology.unheard)}. Add edges from them."
        )


def check_doubly_stochastic(topology: Topology) -> None:
    """Raises ValueError unless rows and columns of all rounds sum to 1."""
    if not topology.is_doubly_stochastic:
        sums = [matrix.sum(axis=1).round(6).tolist() for matrix in topology.rounds]
        raise ValueError(
            "`topology` must be doubly stochastic, or workers that agree would not "
            f"stay as they are: the rows of its rounds sum to {sums}. Use `sgp`, which "
            "weighs workers, or `topologies.from_adjacency` of an undirected graph."
        )


def _edges(adjacency: ArrayLike | Graph) -> NDArray[np.bool_]:
    """Who hears whom, [receiver, sender], nobody itself."""
    if isinstance(adjacency, Graph):
        heard = {node: set(others) for node, others in adjacency.adjacency()}
        edges = np.array([[i in heard[j] for j in heard] for i in heard], bool)
    else:
        edges = np.asarray(adjacency) != 0
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


def _powers(workers: int) -> list[int]:
    return [2**power for power in range(workers) if 2**power < workers]


def _ones(sums: NDArray[np.float64]) -> bool:
    return bool(np.allclose(sums, 1, rtol=0, atol=_ROUNDING))


def _exchanges(matrix: Matrix) -> tuple[Exchange, ...]:
    """As few permutations as the busiest worker has messages.

    Messages are the edges of a graph between senders and receivers. Filled up with
    messages of weight 0, to oneself where possible, until all have as many, it falls
    apart into perfect matchings (Koenig), each of which is a permutation.
    """
    edges = _edges(matrix)
    left = _fill_up(edges.astype(int))
    exchanges = []
    while left.any():
        receiver_of = _perfect_matching(left)
        weights = np.zeros(len(matrix))
        for sender, receiver in enumerate(receiver_of):
            left[receiver, sender] -= 1
            if edges[receiver, sender]:  # Else it fills up, or was sent before.
                weights[receiver] = matrix[receiver, sender]
                edges[receiver, sender] = False
        pairs = tuple(enumerate(receiver_of))
        exchanges.append(Exchange(pairs, tuple(weights.tolist())))
    return tuple(exchanges)


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
