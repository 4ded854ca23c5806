"""The channel that counts signs."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

from gmc_jax.channels._axis import workers_on
from gmc_jax.channels.sharded.shards import shards_of
from gmc_jax.compressors._packing import WORD, pack, unpack
from gmc_jax.core import Channel, Tree
from gmc_jax.utils import checks
from gmc_jax.utils.described import described
from gmc_jax.utils.trees import accumulator_dtype, entries_in, to_vectors, upcast


@described
def majority_vote(*, axis_name: str = "workers") -> Channel:
    """Sends one bit a coordinate each way: the sign that most workers have.

    Each worker packs its signs into bits and sends every other one its share of the
    coordinates (an all-to-all). Each counts the votes of its share and hands the result
    round, packed again (an all-gather). Nobody is the server, and no link carries more
    than another.

    A bit knows no zero: an entry that is 0 votes plus, one that is not a number minus,
    and where as many vote plus as minus, plus wins. So an entry whose gradient is
    always 0 drifts; keep such leaves out with `optax.partition`, and have an odd number
    of workers.

    Args:
      axis_name: the named axis whose indices are the workers.

    Returns:
      A channel without state. `mean` is +1 or -1 in every entry. Its bits are those of
      a worker's votes, in words of 32; it hands round as many over the number of
      workers. Both are padded on the way to whole words for each worker, so that small
      trees take more than that.

    Raises:
      NameError: from `average` where no such axis is in scope.
      TypeError: from `init` and `average` where a leaf is not floating.

    Guarantees:
      Its law: `mean` is the sign of most workers, and `lost` is the tree less that, so
      that the law of channels is met as well.
      `mean` is the same on all workers, bit for bit.
      Per worker the all-to-all takes d bits and the all-gather delivers d bits, both
      rounded up to words of 32 a worker.

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

        def elect(tree: Tree) -> tuple[Tree]:
            plus = jax.tree.map(lambda leaf: leaf >= 0, tree)
            votes, restore = to_vectors(plus, False)
            won = {at: _count(votes[at], workers, axis_name) for at in votes}
            return (restore(won),)

        def mean_of(plus: jax.Array, leaf: jax.Array) -> jax.Array:
            dtype = accumulator_dtype(jnp.result_type(leaf))
            return jnp.where(plus, 1, -1).astype(dtype)

        parts = shards_of(tree)
        (won,) = elect(tree) if parts is None else parts.run(elect, tree)
        mean = jax.tree.map(mean_of, won, tree)
        lost = jax.tree.map(lambda leaf, sign: leaf - sign, upcast(tree), mean)
        return mean, lost, state

    def words(tree: Tree) -> int:
        return math.ceil(entries_in(tree) / WORD)

    return Channel(init, average, lambda tree: WORD * words(tree), axis_name, words)


def _count(votes: jax.Array, workers: int, axis_name: str) -> jax.Array:
    """What most workers vote for, [d] booleans."""
    share = WORD * math.ceil(votes.size / (WORD * workers))
    # Always false: what is the same on all workers, an all-to-all under vmap refuses.
    votes = votes | (lax.axis_index(axis_name) < 0)
    ballots = jnp.pad(votes, (0, workers * share - votes.size))
    sent = jax.vmap(pack)(ballots.reshape(workers, share))
    heard = lax.all_to_all(sent, axis_name, split_axis=0, concat_axis=0, tiled=True)

    def add(worker: jax.Array, counts: jax.Array) -> jax.Array:
        return counts + unpack(heard[worker], share).astype(jnp.int32)

    counts = lax.fori_loop(0, workers, add, jnp.zeros(share, jnp.int32))
    results = lax.all_gather(pack(2 * counts >= workers), axis_name)
    won = jax.vmap(lambda words: unpack(words, share))(results)
    return won.reshape(-1)[: votes.size]
