"""The channel that sends matrices of low rank."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gmc_jax.channels._axis import workers_on
from gmc_jax.channels._matrices import (
    first_factors,
    joined,
    matrices_of,
    mean_of_workers,
    orthonormal,
    parted,
    sizes_sent,
)
from gmc_jax.core import Channel, Tree, with_hooks
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@with_hooks
class LowRankState(NamedTuple):
    """The state of a low-rank channel; the same on all workers.

    Attributes:
      step: int32, how often the channel has averaged.
      right: Q of the last call, of all matrices in one vector; those of one shape and
        dtype follow each other.
    """

    step: jax.Array
    right: jax.Array

    def conserved(self) -> Tree:
        """Q, which the next call starts from."""
        return self.right


@call_repr
def low_rank(rank: int, *, seed: int = 0, axis_name: str = "workers") -> Channel:
    """Sends each matrix as two thin factors, by two all-reduces (PowerSGD).

    For a leaf M_k [n, m] of worker k, with Q [m, rank] of the call before:

        P = mean over k of M_k Q;           P <- orthonormal columns that span P
        Q_k = M_k^T P;                      Q <- mean over k of Q_k
        mean = P Q^T;                       lost_k = M_k - P Q_k^T

    It is one step of a power iteration on the mean of the M_k. A call starts from the Q
    of the call before, so repeated calls approach the largest singular vectors.

    A leaf of more than two dimensions is a matrix: the first dimensions are its rows,
    the others its columns. They are divided where n + m is smallest. That is the
    paper's matrix, or its transpose, for convolutions with outputs first (PyTorch) or
    last (Flax) that have more outputs than their kernels have places. A leaf is
    averaged exactly if it has fewer than two dimensions, or if its factors would not be
    smaller: rank (n + m) >= n m. The first all-reduce takes such leaves along. Layers
    that are stacked into one leaf are one matrix; for a matrix each, keep them as
    leaves.

    16-bit leaves are multiplied, travel and count as float32. Leaves alike are
    multiplied as one batch, so that their code is compiled once. Leaves may be split
    over the devices of a worker (see `distribute`): XLA partitions the products, and
    each device sends its slice of the factors.

    Args:
      rank: of the factors, at least 1; 1, 2 and 4 in the paper.
      seed: of the first Q, which is normal: `fold_in(jax.random.key(seed), leaf)`,
        where `leaf` is the index among `jax.tree.leaves` of the tree.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A channel with `LowRankState`.

    Raises:
      NameError: from `average` where no such axis is in scope.
      TypeError: from `init` and `average` if a leaf is not floating.
      ValueError: if `rank` is not a whole number of at least 1.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.power_sgd(0.1, gmc_jax.low_rank(2))

    Guarantees:
      The law of channels; `mean` is the same on all workers, bit for bit.
      The mean of the workers' matrices loses nothing if its rank is at most `rank`.
      `mean` is what one worker with the mean of all trees would get: it is linear.
      If the trees do not change, `mean` converges to the best approximation of the mean
      tree by matrices of this rank.
      A call sends rank (n + m) numbers for each matrix, and the exact leaves.

    References:
      Vogels, Karimireddy and Jaggi, "PowerSGD", NeurIPS 2019: Algorithm 1. The authors'
      codes subtract P Q^T from the matrix of every worker, not P Q_k^T. The mean
      residual is the same, and so is every step. What workers disagree on stays in
      their residuals there, and grows.
    """
    checks.positive_int(rank=rank)
    checks.seed(seed=seed)
    checks.axis(axis_name=axis_name)

    def init(params):
        checks.floating(params)
        right = first_factors(params, rank, seed)
        return LowRankState(jnp.zeros((), jnp.int32), joined(right))

    def average(tree, state):
        workers_on(axis_name, "low_rank")
        checks.floating(tree)
        matrices = matrices_of(tree, rank, state.step)
        products = matrices.times(parted(state.right, tree, rank, "columns"))
        rest, left = mean_of_workers((matrices.rest, products), axis_name)
        left = orthonormal(left)
        own = matrices.transposed_times(left)
        right = mean_of_workers(own, axis_name)
        mean, lost = matrices.decoded(left, right, rest), matrices.lost(left, own)
        return mean, lost, LowRankState(state.step + 1, joined(right))

    def bits(tree):
        return sizes_sent(tree, rank, ("rows", "columns"))[0]

    def entries(tree):
        return sizes_sent(tree, rank, ("rows", "columns"))[1]

    return Channel(init, average, bits, axis_name, entries)
