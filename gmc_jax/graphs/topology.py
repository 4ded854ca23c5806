"""The topology of workers: its mixing matrices, their properties and their checks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gmc_jax.graphs._reachability import contracts, not_reaching_all
from gmc_jax.graphs.matchings import Matching, permutations
from gmc_jax.graphs.sparse_matrix import Matrix, SparseMatrix, sparse
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import CallRepr

_ROUNDING = 1e-9  # The tolerance for sums of weights in float64.


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Topology(CallRepr):
    """Which workers receive from which, with which weights, in each round.

    Attributes:
      mixing: the mixing matrix of each round, without its zeros; after the last round
        the first follows. Entry [i, j] is the weight, at least 0, that worker i gives
        to the message of worker j.

    Raises:
      TypeError: if `rounds` holds something that is no matrix of numbers.
      ValueError: if there is no round, or the matrices are not square, not of one size,
        or hold a weight that is negative or not finite.
    """

    mixing: tuple[SparseMatrix, ...]

    def __init__(self, rounds: Iterable[Matrix]):
        """Makes the topology of mixing matrices, after checking them."""
        given = rounds
        try:
            rounds = tuple(np.asarray(matrix, np.float64) for matrix in given)
        except (TypeError, ValueError):
            raise TypeError(
                "`rounds` must be matrices of numbers, one for each round, got "
                f"{checks.shown(given)}. For one round write "
                "`Topology((matrix,))`."
            ) from None
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
        object.__setattr__(self, "mixing", tuple(map(sparse, rounds)))

    @classmethod
    def of_weights(cls, mixing: Iterable[SparseMatrix]) -> Topology:
        """Makes a topology of matrices without zeros, which are not checked."""
        made = cls.__new__(cls)
        object.__setattr__(made, "mixing", tuple(mixing))
        return made

    @property
    def _in_short(self) -> str:
        """The `repr` of a topology that no factory of `gmc_jax.topologies` made."""
        return f"<Topology of {self.workers} workers, {len(self.mixing)} rounds>"

    @cached_property
    def rounds(self) -> tuple[Matrix, ...]:
        """The mixing matrix of each round, [receiver, sender]; they cannot be written.

        With 4,096 workers each takes 134 MB, and so they are made when they are read.
        """
        matrices = tuple(matrix.dense() for matrix in self.mixing)
        for matrix in matrices:
            matrix.setflags(write=False)
        return matrices

    @property
    def workers(self) -> int:
        """The number of workers."""
        return self.mixing[0].workers

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
        return 1 - contraction ** (1 / len(self.mixing))

    @property
    def smallest_eigenvalue(self) -> float:
        """The smallest eigenvalue of any round, for a symmetric topology."""
        return min(float(np.linalg.eigvalsh(matrix)[0]) for matrix in self.rounds)

    @property
    def is_symmetric(self) -> bool:
        """Whether every two workers give each other the same weight."""
        return all(map(_is_symmetric, self.mixing))

    @property
    def keeps_the_mean(self) -> bool:
        """Whether columns sum to 1, so that a round does not change the mean."""
        return all(_ones(matrix.given_away()) for matrix in self.mixing)

    @property
    def is_doubly_stochastic(self) -> bool:
        """Whether rows and columns sum to 1, so that workers that agree still agree."""
        rows = all(_ones(matrix.received()) for matrix in self.mixing)
        return rows and self.keeps_the_mean

    @property
    def cannot_reach_all(self) -> tuple[int, ...]:
        """The workers whose messages do not reach all others, even in many rounds."""
        return not_reaching_all(self.mixing)

    @property
    def edges(self) -> NDArray[np.bool_]:
        """Whether a worker receives from another in any round, [receiver, sender]."""
        receives = np.zeros((self.workers, self.workers), bool)
        for matrix in self.mixing:
            receives[matrix.receivers, matrix.senders] = True
        np.fill_diagonal(receives, False)
        return receives

    @cached_property
    def matchings(self) -> tuple[tuple[Matching, ...], ...]:
        """The messages of each round, as permutations of the workers."""
        return tuple(map(permutations, self.mixing))


def check_topology(topology: Topology) -> None:
    """Raises TypeError unless `topology` is a `Topology`."""
    if not isinstance(topology, Topology):
        raise TypeError(
            f"`topology` must be a topology, got {checks.shown(topology)}. Use "
            "`topologies.ring(8)`, `topologies.from_adjacency(matrix)` or the like."
        )


def check_mixing(topology: Topology) -> None:
    """Raises ValueError unless workers come to agree, perhaps through others.

    The topology must keep the mean. No eigenvalues are computed: workers that reach all
    others come to agree if all of them keep a share of their own, and otherwise if no
    part of their disagreement goes in circles.
    """
    check_topology(topology)
    if topology.cannot_reach_all:
        raise ValueError(
            "`topology` must connect every worker to all others, perhaps in several "
            f"rounds, got {checks.shown(list(topology.cannot_reach_all))} that do not "
            "reach all others. Add edges from these workers."
        )
    keep_a_share = all(matrix.diagonal().all() for matrix in topology.mixing)
    if not (keep_a_share or contracts(topology.mixing)):
        raise ValueError(
            "`topology` must contract the disagreement of workers, got a part of it "
            "with an eigenvalue of modulus 1 in the product of all rounds. Let "
            "workers keep a share of their own values: `topologies.lazy(topology)`."
        )


def check_keeps_the_mean(topology: Topology) -> None:
    """Raises ValueError unless columns of all rounds sum to 1."""
    check_topology(topology)
    if not topology.keeps_the_mean:
        sums = [matrix.given_away().round(6).tolist() for matrix in topology.mixing]
        raise ValueError(
            "`topology` must keep the mean of workers: the columns of its rounds must "
            f"sum to 1, got {checks.shown(sums)}. Use `topologies.pushing(adjacency)` "
            "of the same graph."
        )


def check_doubly_stochastic(topology: Topology) -> None:
    """Raises ValueError unless rows and columns of all rounds sum to 1."""
    check_topology(topology)
    if not topology.is_doubly_stochastic:
        sums = [matrix.received().round(6).tolist() for matrix in topology.mixing]
        raise ValueError(
            "`topology` must be doubly stochastic: rows and columns must sum to 1, so "
            "that workers that agree still agree after a round, got rows that sum to "
            f"{checks.shown(sums)}. Use `sgp`, which weighs workers, or "
            "`topologies.from_adjacency` of an undirected graph."
        )


def _is_symmetric(matrix: SparseMatrix) -> bool:
    other = matrix.transposed()
    if np.array_equal(matrix.senders, other.senders) and np.array_equal(
        matrix.receivers, other.receivers
    ):
        return np.allclose(matrix.weights, other.weights, rtol=0, atol=_ROUNDING)
    # A weight that rounds to 0 may lead in one direction only.
    places = np.concatenate([matrix.places(), other.places()])
    _, inverse = np.unique(places, return_inverse=True)
    weights = np.concatenate([matrix.weights, -other.weights])
    return bool((np.abs(np.bincount(inverse, weights)) <= _ROUNDING).all())


def _ones(sums: NDArray[np.float64]) -> bool:
    return bool(np.allclose(sums, 1, rtol=0, atol=_ROUNDING))
