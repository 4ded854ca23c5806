"""The channel that sends one of two thin factors in turn."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gmc_jax.channels._axis import workers_on
from gmc_jax.channels._calls import call
from gmc_jax.channels._matrices import (
    first_factors,
    groups_of,
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
class AlternatingLowRankState(NamedTuple):
    """The state of an alternating low-rank channel; the same on all workers.

    Attributes:
      step: int32, how often the channel has averaged.
      left: the last P of all matrices, in one vector, as in `LowRankState`.
      right: the last Q.
    """

    step: jax.Array
    left: jax.Array
    right: jax.Array

    def conserved(self) -> Tree:
        """The factors, which the next calls start from."""
        return self.left, self.right


@call_repr
def alternating_low_rank(
    rank: int, *, seed: int = 0, axis_name: str = "workers"
) -> Channel:
    """Sends one thin factor of each matrix, left and right in turn: half of PowerSGD.

    For a leaf M_k [n, m] of worker k, in even calls:

        Q <- orthonormal columns that span Q
        P_k = M_k Q;                        P <- mean over k of P_k
        mean = P Q^T;                       lost_k = M_k - P_k Q^T

    and in odd calls the same with P and Q exchanged and M_k transposed. A call is half
    of a call of `low_rank`: one all-reduce, and half of the numbers on average. Which
    leaves are matrices, their shapes and their precision are as in `low_rank`, and so
    are leaves that are split.

    Args:
      rank: of the factors, at least 1.
      seed: of the first Q, as in `low_rank`.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A channel with `AlternatingLowRankState`. Its bits are those of the larger factor;
      `message_bits` of a method counts each call by itself.

    Raises:
      NameError: from `average` where no such axis is in scope.
      TypeError: from `init` and `average` if a leaf is not floating.
      ValueError: if `rank` is not a whole number of at least 1; from `entries`, and so
        from `count_entries(...).init`, if left and right factors differ in size.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.power_sgd(0.1, gmc_jax.alternating_low_rank(2))

    Guarantees:
      The law of channels; `mean` is the same on all workers, bit for bit.
      The mean of the workers' matrices loses nothing from the second call on if they do
      not change and its rank is at most `rank`. The first call projects it on random
      columns.
      If the trees do not change, a call's mean is that of `low_rank` after half of the
      calls, whose first Q spans the same columns.

    References:
      Vogels, Karimireddy and Jaggi, "PowerSGD", NeurIPS 2019: the form of the authors'
      library, which sends each factor in every second step. It begins with the right
      factor: its steps are ours on transposed matrices.
    """
    checks.positive_int(rank=rank)
    checks.seed(seed=seed)
    checks.axis(axis_name=axis_name)

    def init(params):
        checks.floating(params)
        left = [
            jnp.zeros((len(group.leaves), group.rows, rank), group.dtype)
            for group in groups_of(params, rank)
        ]
        right = first_factors(params, rank, seed)
        step = jnp.zeros((), jnp.int32)
        return AlternatingLowRankState(step, joined(left), joined(right))

    def send_left(tree, state):
        matrices = matrices_of(tree, rank, state.step)
        right = orthonormal(parted(state.right, tree, rank, "columns"))
        own = matrices.times(right)
        rest, left = mean_of_workers((matrices.rest, own), axis_name)
        mean, lost = matrices.decoded(left, right, rest), matrices.lost(own, right)
        return mean, lost, state._replace(left=joined(left))

    def send_right(tree, state):
        matrices = matrices_of(tree, rank, state.step)
        left = orthonormal(parted(state.left, tree, rank, "rows"))
        own = matrices.transposed_times(left)
        rest, right = mean_of_workers((matrices.rest, own), axis_name)
        mean, lost = matrices.decoded(left, right, rest), matrices.lost(left, own)
        return mean, lost, state._replace(right=joined(right))

    def size(side: str, tree: Tree) -> int:
        return sizes_sent(tree, rank, [side])[0]

    turns = [
        Channel(init, send, partial(size, side), axis_name)
        for send, side in ((send_left, "rows"), (send_right, "columns"))
    ]

    def average(tree, state):
        workers_on(axis_name, "alternating_low_rank")
        checks.floating(tree)
        mean, lost, after = jax.lax.switch(
            state.step % 2, [partial(call, turn, tree) for turn in turns], state
        )
        return mean, lost, after._replace(step=state.step + 1)

    def bits(tree):
        return max(turn.bits(tree) for turn in turns)

    def entries(tree):
        left, right = (
            sizes_sent(tree, rank, [side])[1] for side in ("rows", "columns")
        )
        if left != right:
            raise ValueError(
                "`alternating_low_rank` must send the same number of entries in all "
                f"calls to be counted, got {left} and {right}. Use `message_bits` of "
                "the method, which counts both, or `low_rank`, which sends both."
            )
        return left

    return Channel(init, average, bits, axis_name, entries)
