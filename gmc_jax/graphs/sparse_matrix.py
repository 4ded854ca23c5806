"""Mixing matrices without their zeros: of thousands of workers, few are neighbours."""

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Matrix: TypeAlias = NDArray[np.float64]
"""Weights [receiver, sender]."""
Indices: TypeAlias = NDArray[np.int32]
"""Indices of workers."""


class SparseMatrix(NamedTuple):
    """The weights of a round that are not 0, in the order of senders, then receivers.

    Attributes:
      workers: the number of workers.
      senders: [weights], whose value is weighed; a worker's own values count, too.
      receivers: [weights], by whom it is weighed.
      weights: [weights], float64.
    """

    workers: int
    senders: Indices
    receivers: Indices
    weights: NDArray[np.float64]

    @property
    def is_full(self) -> bool:
        """Whether no weight is 0, so that all receive from all."""
        return len(self.weights) == self.workers**2

    def dense(self) -> Matrix:
        """The matrix with all its zeros, [receiver, sender]."""
        matrix = np.zeros((self.workers, self.workers))
        matrix[self.receivers, self.senders] = self.weights
        return matrix

    def places(self) -> NDArray[np.int64]:
        """Where each weight stands, counted column by column; ascending, [weights]."""
        return self.senders * np.int64(self.workers) + self.receivers

    def diagonal(self) -> NDArray[np.float64]:
        """The weights that workers give to their own values, [workers]."""
        own = self.senders == self.receivers
        diagonal = np.zeros(self.workers)
        diagonal[self.senders[own]] = self.weights[own]
        return diagonal

    def without_diagonal(self) -> "SparseMatrix":
        """The weights of messages from one worker to another."""
        others = self.senders != self.receivers
        return SparseMatrix(
            self.workers,
            self.senders[others],
            self.receivers[others],
            self.weights[others],
        )

    def given_away(self) -> NDArray[np.float64]:
        """The sums of columns: of the weights of each sender, [workers]."""
        return _sums(self.senders, self.weights, self.workers)

    def received(self) -> NDArray[np.float64]:
        """The sums of rows: of the weights of each receiver, [workers]."""
        return _sums(self.receivers, self.weights, self.workers)

    def transposed(self) -> "SparseMatrix":
        """The matrix whose senders receive and whose receivers send."""
        if self.is_full:
            weights = self.weights.reshape(self.workers, self.workers).T.ravel()
            return self._replace(weights=weights)
        # NumPy sorts integers of 16 bits in linear time.
        narrow = np.uint16 if self.workers <= 2**16 else np.int32
        order = np.argsort(self.receivers.astype(narrow), kind="stable")
        return SparseMatrix(
            self.workers,
            self.receivers[order],
            self.senders[order],
            self.weights[order],
        )


def sparse(matrix: Matrix) -> SparseMatrix:
    """Takes a matrix apart."""
    senders, receivers = np.nonzero(np.ascontiguousarray((matrix != 0).T))
    weights = matrix[receivers, senders]
    return SparseMatrix(len(matrix), _indices(senders), _indices(receivers), weights)


def from_weights(
    workers: int, senders: ArrayLike, receivers: ArrayLike, weights: ArrayLike
) -> SparseMatrix:
    """Makes the matrix of weights in any order.

    Args:
      workers: the number of workers.
      senders: any shape, of indices.
      receivers: indices; no pair of a sender and a receiver comes twice.
      weights: their weights. Those that are 0 are left out.
    """
    arrays = np.broadcast_arrays(senders, receivers, np.asarray(weights, np.float64))
    senders, receivers, weights = (array.ravel() for array in arrays)
    order = np.argsort(senders * np.int64(workers) + receivers, kind="stable")
    order = order[weights[order] != 0]
    return SparseMatrix(
        workers, _indices(senders[order]), _indices(receivers[order]), weights[order]
    )


def _indices(values: NDArray[np.integer]) -> Indices:
    return values.astype(np.int32)


def _sums(
    ends: Indices, weights: NDArray[np.float64], workers: int
) -> NDArray[np.float64]:
    return np.bincount(ends, weights, workers).astype(np.float64, copy=False)
