"""The channel that averages exactly."""

from __future__ import annotations

import jax
from jax import lax

from gmc_jax.channels._axis import workers_on
from gmc_jax.channels.sharded.shards import shards_of
from gmc_jax.core import Channel, Tree
from gmc_jax.utils import checks
from gmc_jax.utils.described import described
from gmc_jax.utils.trees import (
    entries_in,
    mean_of,
    scale_floats,
    shares,
    size_in_bits,
    upcast,
    zeros_to_accumulate,
)


@described
def exact(*, axis_name: str = "workers") -> Channel:
    """The dense mean over workers, by one all-reduce: nothing is lost.

    16-bit trees are summed, and so travel and count, in float32. Each
    device of a worker sends its part of what is split, and a slice of what is not.

    Args:
      axis_name: the named axis whose indices are the workers.

    Returns:
      A channel without state.

    Raises:
      NameError: from `average` where no such axis is in scope.
      TypeError: from `init` and `average` where a leaf is not floating.

    Guarantees:
      `mean` is the same on all workers, bit for bit; `lost` is zero.
      Finite trees have a finite mean: what is added is shares of 1 / K or less, a power
      of two. Of entries below 2 K times the smallest normal number they may be 0.
    """
    checks.axis(axis_name=axis_name)

    def init(params):
        checks.floating(params)
        return ()

    def average(tree, state):
        workers = workers_on(axis_name, "exact")
        checks.floating(tree)

        share, rest = shares(workers)

        def add(tree: Tree) -> Tree:
            return lax.psum(tree, axis_name)

        parts, given = shards_of(tree), scale_floats(upcast(tree), share)
        if parts is None:
            total = add(given)
        else:
            (total,) = parts.run(lambda tree: (parts.once(tree, add),), given)
        mean = jax.tree.map(lambda leaf: mean_of(leaf, rest), total)
        return mean, zeros_to_accumulate(tree), state

    def bits(tree):
        return size_in_bits(jax.eval_shape(zeros_to_accumulate, tree))

    return Channel(init, average, bits, axis_name, entries_in)
