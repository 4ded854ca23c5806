"""The channel that counts the signs of all workers."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from gmc_jax.channels._axis import workers_on
from gmc_jax.channels._collectives import exchange_rows, gather
from gmc_jax.channels.sharded.shards import Shards, on_shards
from gmc_jax.compressors._packing import WORD, add_packed, pack, unpack
from gmc_jax.core import Channel, Tree
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.trees import accumulator_dtype, entries_in, upcast
from gmc_jax.utils.vectors import to_vectors


@call_repr
def majority_vote(*, axis_name: str = "workers") -> Channel:
    """Averages signs by majority: one bit an entry in each direction.

    Each worker packs its signs into bits. An all-to-all gives every worker one slice of
    the entries, with the votes of all workers on it. The worker counts these votes and
    packs the results, and an all-gather gives the results to all. No worker is a
    server, and no link carries more than another.

    A bit has no zero. An entry that is 0 votes plus, one that is NaN votes minus, and
    plus wins a tie. So an entry whose gradient is always 0 drifts: leave such leaves
    out with `optax.partition`, and use an odd number of workers.

    Args:
      axis_name: the named axis whose indices are the workers.

    Returns:
      A channel without state. Every entry of `mean` is +1 or -1. `bits` counts the
      votes that one worker sends, in words of 32 bits. It does not count the slice of
      the results that the worker sends, which is 1 / K of the votes. Both are padded to
      whole words for each worker, so small trees take more than `bits`.

    Raises:
      NameError: from `average` where no such axis is in scope.
      TypeError: from `init` and `average` if a leaf is not floating.

    Guarantees:
      Its law: `mean` is the sign that most workers have, and `lost` is the tree minus
      `mean`. So the law of channels holds.
      `mean` is the same on all workers, bit for bit.
      For each worker the all-to-all takes d bits and the all-gather delivers d bits,
      both rounded up to words of 32 for each worker (on TPUs, the all-gather to 128
      words).

    References:
      Bernstein, Wang, Azizzadenesheli and Anandkumar, "signSGD", ICML 2018; Bernstein,
      Zhao, Azizzadenesheli and Anandkumar, "signSGD with Majority Vote is Communication
      Efficient and Fault Tolerant", ICLR 2019.
    """
    checks.axis(axis_name=axis_name)

    def init(params):
        checks.floating(params)
        return ()

    def average(tree, state):
        workers = workers_on(axis_name, "majority_vote")
        checks.floating(tree)

        def vote(shards: Shards, tree: Tree) -> tuple[Tree]:
            del shards
            plus = jax.tree.map(lambda leaf: leaf >= 0, tree)
            votes, restore = to_vectors(plus, False)
            won = {
                index: _majority(vector, workers, axis_name)
                for index, vector in votes.items()
            }
            return (restore(won),)

        def as_sign(plus: jax.Array, leaf: jax.Array) -> jax.Array:
            dtype = accumulator_dtype(jnp.result_type(leaf))
            return jnp.where(plus, 1, -1).astype(dtype)

        (won,) = on_shards(vote, tree)
        mean = jax.tree.map(as_sign, won, tree)
        lost = jax.tree.map(lambda leaf, sign: leaf - sign, upcast(tree), mean)
        return mean, lost, state

    def words(tree: Tree) -> int:
        return math.ceil(entries_in(tree) / WORD)

    return Channel(init, average, lambda tree: WORD * words(tree), axis_name, words)


def _majority(votes: jax.Array, workers: int, axis_name: str) -> jax.Array:
    """What most workers vote for, [d] booleans."""
    slice_size = WORD * math.ceil(votes.size / (WORD * workers))
    padded = jnp.pad(votes, (0, workers * slice_size - votes.size))
    sent = jax.vmap(pack)(padded.reshape(workers, slice_size))
    received = exchange_rows(sent, axis_name)
    counts = add_packed(
        received, lambda worker, plus: plus.astype(jnp.int32), slice_size
    )
    results = gather(pack(2 * counts >= workers), axis_name)
    won = jax.vmap(lambda words: unpack(words, slice_size))(results).astype(bool)
    return won.reshape(-1)[: votes.size]
