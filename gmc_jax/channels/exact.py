"""The channel that averages exactly."""

from __future__ import annotations

import jax

from gmc_jax.channels._axis import workers_on
from gmc_jax.channels._collectives import sum_over_workers
from gmc_jax.channels.sharded.shards import Shards, on_shards
from gmc_jax.core import Channel, Tree
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.trees import (
    entries_in,
    mean_of,
    scale_floats,
    shares,
    size_in_bits,
    upcast,
    zeros_to_accumulate,
)


@call_repr
def exact(*, axis_name: str = "workers") -> Channel:
    """Averages over workers exactly, by one all-reduce; nothing is lost.

    16-bit trees are summed in float32: they travel, and count, as float32. Each device
    of a worker sends its own shards of split leaves and a slice of whole leaves.

    Args:
      axis_name: the named axis whose indices are the workers.

    Returns:
      A channel without state.

    Raises:
      NameError: from `average` where no such axis is in scope.
      TypeError: from `init` and `average` if a leaf is not floating.

    Guarantees:
      `mean` is the same on all workers, bit for bit; `lost` is zero.
      The order of the sum is that of XLA's all-reduce. Simulated workers are added one
      after another, as XLA does it on CPUs.
      The mean of finite trees is finite: each worker multiplies its tree by a power of
      two, at most 1 / K, before the sum. Entries below 2 K times the smallest normal
      number may become 0.
    """
    checks.axis(axis_name=axis_name)

    def init(params):
        checks.floating(params)
        return ()

    def average(tree, state):
        workers = workers_on(axis_name, "exact")
        checks.floating(tree)
        share, divisor = shares(workers)

        def add(shards: Shards, tree: Tree) -> tuple[Tree]:
            total = shards.without_duplicates(
                tree, lambda leaves: sum_over_workers(leaves, axis_name)
            )
            return (total,)

        (total,) = on_shards(add, scale_floats(upcast(tree), share))
        mean = jax.tree.map(lambda leaf: mean_of(leaf, divisor), total)
        return mean, zeros_to_accumulate(tree), state

    def bits(tree):
        return size_in_bits(jax.eval_shape(zeros_to_accumulate, tree))

    return Channel(init, average, bits, axis_name, entries_in)
