"""Counting the entries that workers send and receive, as the GMC paper does."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gmc_jax.channels._calls import call
from gmc_jax.channels._counts import add_to_count
from gmc_jax.core import Channel, Tree
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.jaxprs import mark_updated
from gmc_jax.utils.trees import upcast


class CountEntriesState(NamedTuple):
    """The counts of a channel so far, in 64 bits: [2] uint32, the high half first.

    Attributes:
      up: the entries that this worker sent; differs between workers.
      down: the entries of the means that this worker received.
      dense: the entries that this worker would have sent to a dense average at each
        call; it would have received as many. 0 with `extra`.
      indexed: bool, whether entries travel with their indices.
      inner: the state of the channel.
    """

    up: jax.Array
    down: jax.Array
    dense: jax.Array
    indexed: jax.Array
    inner: Tree


@call_repr
def count_entries(channel: Channel, *, extra: bool = False) -> Channel:
    """Counts, in the state of a channel, the entries that workers send and receive.

    Where messages carry indices, the nonzero entries of what was sent count, and those
    of the mean count as received. Where they do not, all values of the message count,
    zeros included, and as many count as received. A word of 32 packed signs counts as
    one entry, and so does a scale. `gmc_jax.relative_cost` reads the counts. Counting
    sends nothing.

    Args:
      channel: any channel.
      extra: whether another counted channel already averages the same leaves at every
        step, as the channel of `cser` does beside the channel of its resets. The
        entries of an extra channel count. They add nothing to `dense`, because a step
        is compared with one dense average.

    Returns:
      The channel, with `CountEntriesState` around its state.

    Raises:
      TypeError: if `channel` is not a channel.

    Guarantees:
      `mean` and `lost` are those of the channel. Counts are exact below 2^64.
    """
    checks.channel(channel=channel)
    checks.flag(extra=extra)

    def init(params):
        checks.floating(params)
        indexed = channel.entries(params) is None
        return CountEntriesState(
            up=jnp.zeros(2, jnp.uint32),
            down=jnp.zeros(2, jnp.uint32),
            dense=jnp.zeros(2, jnp.uint32),
            indexed=jnp.array(indexed),
            inner=channel.init(params),
        )

    def average(tree, state):
        mean, lost, inner = call(channel, tree, state.inner)
        entries = channel.entries(tree)
        if entries is None:
            sent = jax.tree.map(_sent, upcast(tree), lost)
            up, down = _add_nonzero(state.up, sent), _add_nonzero(state.down, mean)
        else:
            up, down = (
                add_to_count(state.up, entries),
                add_to_count(state.down, entries),
            )
        sizes = 0 if extra else sum(jnp.size(leaf) for leaf in jax.tree.leaves(tree))
        counts = CountEntriesState(
            up, down, add_to_count(state.dense, sizes), state.indexed, inner
        )
        return mean, lost, mark_updated(counts)

    return Channel(init, average, channel.bits, channel.axis_name, channel.entries)


def _sent(leaf: jax.Array, lost: jax.Array) -> jax.Array:
    return (leaf != lost) & ~(jnp.isnan(leaf) & jnp.isnan(lost))


def _add_nonzero(count: jax.Array, tree: Tree) -> jax.Array:
    for leaf in jax.tree.leaves(tree):
        count = add_to_count(count, jnp.count_nonzero(leaf).astype(jnp.uint32))
    return count
