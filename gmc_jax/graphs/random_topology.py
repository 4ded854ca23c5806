"""A topology whose edges are drawn anew in each round."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from gmc_jax.graphs._matcha import Floats, Pairs, laplacian, second_moment
from gmc_jax.graphs.sparse_matrix import Matrix, from_weights
from gmc_jax.graphs.topology import Topology
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import CallRepr


@dataclass(frozen=True, eq=False, repr=False)
class RandomTopology(CallRepr):
    """Matchings, each of which is active in a round with a probability of its own.

    A round has the matrix W = I - weight * sum over active j of L_j, where L_j is the
    Laplacian of matching j. Rounds are independent of each other, and so are matchings.

    Attributes:
      workers: the number of workers.
      matchings: the pairs of neighbours of each matching.
      probabilities: of each matching to be active, in (0, 1].
      weight: alpha in the paper, what neighbours give to each other's difference.
      seed: of the draws.
    """

    workers: int
    matchings: tuple[Pairs, ...]
    probabilities: tuple[float, ...]
    weight: float
    seed: int

    @cached_property
    def laplacians(self) -> Floats:
        """Those of all matchings, [matchings, workers, workers]."""
        shape = len(self.matchings), self.workers, self.workers
        made = [laplacian(self.workers, pairs) for pairs in self.matchings]
        return np.array(made).reshape(shape)

    def matrix(self, active: ArrayLike) -> Matrix:
        """The mixing matrix of a round; `active` says which matchings are, [matchings].

        Probabilities in the place of `active` give its mean over rounds.
        """
        total = np.tensordot(np.asarray(active, np.float64), self.laplacians, 1)
        return np.eye(self.workers) - self.weight * total

    @property
    def spectral_gap(self) -> float:
        """How fast workers agree: 1 - rho, with rho^2 the norm of E[W'W] - J.

        The mean squared disagreement shrinks at least by rho^2 in a round.
        """
        chances = np.array(self.probabilities)
        moment = second_moment(self.laplacians, chances, self.weight)
        return 1 - max(moment, 0.0) ** 0.5

    @property
    def degree(self) -> int:
        """How many neighbours the busiest worker has, one in a matching."""
        pairs = [pair for matching in self.matchings for pair in matching]
        return int(np.bincount(np.array(pairs).ravel()).max()) if pairs else 0

    @cached_property
    def single(self) -> tuple[Topology, ...]:
        """The topology of each matching alone."""
        return tuple(map(self._alone, self.matchings))

    def _alone(self, pairs: Pairs) -> Topology:
        one, other = np.array(pairs).T
        own = np.ones(self.workers)
        own[one] = own[other] = 1 - self.weight
        everyone = np.arange(self.workers)
        weights = np.full(len(one), self.weight)
        matrix = from_weights(
            self.workers,
            np.concatenate([everyone, one, other]),
            np.concatenate([everyone, other, one]),
            np.concatenate([own, weights, weights]),
        )
        return Topology.of_weights([matrix])


def check_random(topology: RandomTopology) -> None:
    """Raises TypeError unless `topology` is a `RandomTopology`."""
    if not isinstance(topology, RandomTopology):
        raise TypeError(
            "`topology` must have matchings that are drawn at random, got "
            f"{checks.shown(topology)}. Use `topologies.matcha(adjacency, budget)`."
        )
