"""Mixing matrices, round after round: what they keep, and what methods ask of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gmc_jax.graphs.matchings import Matching, Matrix, permutations
from gmc_jax.utils import checks
from gmc_jax.utils.described import Described

_ROUNDING = 1e-9  # Of sums of weights, in float64.


@dataclass(frozen=True, eq=False, repr=False)
class Topology(Described):
    """Which workers hear each other, with which weights, round after round.

    Attributes:
      rounds: the mixing matrices of the rounds, repeated for ever: entry [i, j] is the
        weight, at least 0, with which worker i takes what worker j has.

    Raises:
      TypeError: if they are no matrices of numbers.
      ValueError: if there is no round, or they are not square matrices of one size, of
        finite weights of at least 0.
    """

    rounds: tuple[Matrix, ...]

    def __post_init__(self):
        """Refuses what is not a tuple of mixing matrices."""
        try:
            rounds = tuple(np.asarray(matrix, np.float64) for matrix in self.rounds)
        except (TypeError, ValueError):
            raise TypeError(
                "`rounds` must be matrices of numbers, one for each round, but is "
                f"{checks.shown(self.rounds)}. For one round write "
                "`Topology((matrix,))`."
            ) from None
        object.__setattr__(self, "rounds", rounds)
        shapes = {matrix.shape for matrix in rounds}
        square = all(len(shape) == 2 and 0 < shape[0] == shape[1] for shape in shapes)
        if len(shapes) != 1 or not square:
            raise ValueError(
                "`rounds` must be square matrices of one size, one for each round, but "
                f"have the shapes {[matrix.shape for matrix in rounds]}. For one round "
                "write `Topology((matrix,))`."
            )
        lowest = min(matrix.min() for matrix in rounds)
        if not (lowest >= 0 and all(np.isfinite(matrix).all() for matrix in rounds)):
            raise ValueError(
                "`rounds` must hold finite weights of at least 0, but the smallest is "
                f"{lowest}."
            )

    @property
    def _in_short(self) -> str:
        """What it is, where no factory of `gmc_jax.topologies` made it."""
        return f"<Topology of {self.workers} workers, {len(self.rounds)} rounds>"

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
    def edges(self) -> NDArray[np.bool_]:
        """Whether a worker hears another in any round, [receiver, sender]."""
        heard = np.sum(self.rounds, axis=0) > 0
        np.fill_diagonal(heard, False)
        return heard

    @property
    def matchings(self) -> tuple[tuple[Matching, ...], ...]:
        """The messages of each round, as permutations of the workers."""
        return tuple(permutations(matrix) for matrix in self.rounds)


def check_topology(topology: Topology) -> None:
    """Raises TypeError unless it is a topology."""
    if not isinstance(topology, Topology):
        raise TypeError(
            "`topology` must be a topology, such as `topologies.ring(8)` or "
            f"`topologies.from_adjacency(matrix)`, but is {checks.shown(topology)}."
        )


def check_mixing(topology: Topology) -> None:
    """Raises ValueError unless workers come to agree, if only through others."""
    check_topology(topology)
    if topology.unheard:
        raise ValueError(
            "`topology` must connect all workers, if only in several rounds, but some "
            f"hear nothing of {list(topology.unheard)}. Add edges from them."
        )
    mean = np.full((topology.workers, topology.workers), 1 / topology.workers)
    left = np.abs(np.linalg.eigvals(topology.matrix - mean)).max()
    if left >= 1 - _ROUNDING:
        raise ValueError(
            "`topology` must bring workers together, but a part of their disagreement "
            f"has the eigenvalue {left:.4f} in the product of all rounds and only goes "
            "round. Let them keep a share of their own: `topologies.lazy(topology)`."
        )


def check_keeps_the_mean(topology: Topology) -> None:
    """Raises ValueError unless columns of all rounds sum to 1."""
    check_topology(topology)
    if not topology.keeps_the_mean:
        sums = [matrix.sum(axis=0).round(6).tolist() for matrix in topology.rounds]
        raise ValueError(
            "`topology` must keep the mean, so that nothing is lost or made on the "
            f"way: the columns of its rounds must sum to 1, but sum to {sums}. Use "
            "`topologies.pushing(adjacency)` of the same graph."
        )


def check_doubly_stochastic(topology: Topology) -> None:
    """Raises ValueError unless rows and columns of all rounds sum to 1."""
    check_topology(topology)
    if not topology.is_doubly_stochastic:
        sums = [matrix.sum(axis=1).round(6).tolist() for matrix in topology.rounds]
        raise ValueError(
            "`topology` must be doubly stochastic, or workers that agree would not "
            f"stay as they are: the rows of its rounds sum to {sums}. Use `sgp`, which "
            "weighs workers, or `topologies.from_adjacency` of an undirected graph."
        )


def _ones(sums: NDArray[np.float64]) -> bool:
    return bool(np.allclose(sums, 1, rtol=0, atol=_ROUNDING))
