"""The topology of workers: its mixing matrices, their properties and their checks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gmc_jax.graphs.matchings import Matching, Matrix, permutations
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import CallRepr

_ROUNDING = 1e-9  # The tolerance for sums of weights in float64.


@dataclass(frozen=True, eq=False, repr=False)
class Topology(CallRepr):
    """Which workers receive from which, with which weights, in each round.

    Attributes:
      rounds: the mixing matrix of each round; after the last round the first follows.
        Entry [i, j] is the weight, at least 0, that worker i gives to the message of
        worker j.

    Raises:
      TypeError: if `rounds` holds something that is no matrix of numbers.
      ValueError: if there is no round, or the matrices are not square, not of one size,
        or hold a weight that is negative or not finite.
    """

    rounds: tuple[Matrix, ...]

    def __post_init__(self):
        """Checks that all rounds are mixing matrices."""
        try:
            rounds = tuple(np.asarray(matrix, np.float64) for matrix in self.rounds)
        except (TypeError, ValueError):
            raise TypeError(
                "`rounds` must be matrices of numbers, one for each round, got "
                f"{checks.shown(self.rounds)}. For one round write "
                "`Topology((matrix,))`."
            ) from None
        object.__setattr__(self, "rounds", rounds)
        shapes = {matrix.shape for matrix in rounds}
        square = all(len(shape) == 2 and 0 < shape[0] == shape[1] for shape in shapes)
        if len(shapes) != 1 or not square:
            raise ValueError(
                "`rounds` must be square matrices of one size, one for each round, got "
                f"the shapes {[matrix.shape for matrix in rounds]}. For one round "
                "write `Topology((matrix,))`."
            )
        lowest = min(matrix.min() for matrix in rounds)
        if not (lowest >= 0 and all(np.isfinite(matrix).all() for matrix in rounds)):
            raise ValueError(
                "`rounds` must hold finite weights of at least 0, got weights of which "
                f"the smallest is {lowest}."
            )

    @property
    def _in_short(self) -> str:
        """The `repr` of a topology that no factory of `gmc_jax.topologies` made."""
        return f"<Topology of {self.workers} workers, {len(self.rounds)} rounds>"

    @property
    def workers(self) -> int:
        """The number of workers."""
        return len(self.rounds[0])

    @property
    def matrix(self) -> Matrix:
        """The product of all rounds, the last one leftmost: the matrix of one cycle."""
        product = np.eye(self.workers)
        for matrix in self.rounds:
            product = matrix @ product
        return product

    @property
    def spectral_gap(self) -> float:
        """How fast workers agree: 1 - rho, where a round contracts disagreement by rho.

        W is the product of all R rounds, and J the matrix of the exact mean. Then rho
        is the spectral norm of W - J, to the power of 1 / R.
        """
        mean = np.full((self.workers, self.workers), 1 / self.workers)
        contraction = float(np.linalg.norm(self.matrix - mean, 2))
        return 1 - contraction ** (1 / len(self.rounds))

    @property
    def smallest_eigenvalue(self) -> float:
        """The smallest eigenvalue of any round, for a symmetric topology."""
        return min(float(np.linalg.eigvalsh(matrix)[0]) for matrix in self.rounds)

    @property
    def is_symmetric(self) -> bool:
        """Whether every two workers give each other the same weight."""
        return all(np.allclose(w, w.T, rtol=0, atol=_ROUNDING) for w in self.rounds)

    @property
    def keeps_the_mean(self) -> bool:
        """Whether columns sum to 1, so that a round does not change the mean."""
        return all(_ones(matrix.sum(axis=0)) for matrix in self.rounds)

    @property
    def is_doubly_stochastic(self) -> bool:
        """Whether rows and columns sum to 1, so that workers that agree still agree."""
        rows = all(_ones(matrix.sum(axis=1)) for matrix in self.rounds)
        return rows and self.keeps_the_mean

    @property
    def cannot_reach_all(self) -> tuple[int, ...]:
        """The workers whose messages do not reach all others, even in many rounds."""
        reaches = np.eye(self.workers) + sum(self.rounds) > 0
        for _ in range(self.workers):
            reaches = reaches @ reaches
        return tuple(np.flatnonzero(~reaches.all(axis=0)).tolist())

    @property
    def edges(self) -> NDArray[np.bool_]:
        """Whether a worker receives from another in any round, [receiver, sender]."""
        receives = np.sum(self.rounds, axis=0) > 0
        np.fill_diagonal(receives, False)
        return receives

    @property
    def matchings(self) -> tuple[tuple[Matching, ...], ...]:
        """The messages of each round, as permutations of the workers."""
        return tuple(permutations(matrix) for matrix in self.rounds)


def check_topology(topology: Topology) -> None:
    """Raises TypeError unless `topology` is a `Topology`."""
    if not isinstance(topology, Topology):
        raise TypeError(
            f"`topology` must be a topology, got {checks.shown(topology)}. Use "
            "`topologies.ring(8)`, `topologies.from_adjacency(matrix)` or the like."
        )


def check_mixing(topology: Topology) -> None:
    """Raises ValueError unless workers come to agree, perhaps through others."""
    check_topology(topology)
    if topology.cannot_reach_all:
        raise ValueError(
            "`topology` must connect every worker to all others, perhaps in several "
            f"rounds, got {list(topology.cannot_reach_all)} that do not reach all "
            "others. Add edges from these workers."
        )
    mean = np.full((topology.workers, topology.workers), 1 / topology.workers)
    largest = np.abs(np.linalg.eigvals(topology.matrix - mean)).max()
    if largest >= 1 - _ROUNDING:
        raise ValueError(
            "`topology` must contract the disagreement of workers, got a part of it "
            f"with the eigenvalue {largest:.4f} in the product of all rounds. Let "
            "workers keep a share of their own values: `topologies.lazy(topology)`."
        )


def check_keeps_the_mean(topology: Topology) -> None:
    """Raises ValueError unless columns of all rounds sum to 1."""
    check_topology(topology)
    if not topology.keeps_the_mean:
        sums = [matrix.sum(axis=0).round(6).tolist() for matrix in topology.rounds]
        raise ValueError(
            "`topology` must keep the mean of workers: the columns of its rounds must "
            f"sum to 1, got {sums}. Use `topologies.pushing(adjacency)` of the same "
            "graph."
        )


def check_doubly_stochastic(topology: Topology) -> None:
    """Raises ValueError unless rows and columns of all rounds sum to 1."""
    check_topology(topology)
    if not topology.is_doubly_stochastic:
        sums = [matrix.sum(axis=1).round(6).tolist() for matrix in topology.rounds]
        raise ValueError(
            "`topology` must be doubly stochastic: rows and columns must sum to 1, so "
            "that workers that agree still agree after a round, got rows that sum to "
            f"{sums}. Use `sgp`, which weighs workers, or `topologies.from_adjacency` "
            "of an undirected graph."
        )


def _ones(sums: NDArray[np.float64]) -> bool:
    return bool(np.allclose(sums, 1, rtol=0, atol=_ROUNDING))
