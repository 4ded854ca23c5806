"""Counting the bytes that a worker sends."""

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


class CountBytesState(NamedTuple):
    """The count of a channel so far.

    Attributes:
      sent: the bytes that this worker sent, in 64 bits: [2] uint32, the high half
        first. It is the same on all workers.
      inner: the state of the channel.
    """

    sent: jax.Array
    inner: Tree


@call_repr
def count_bytes(channel: Channel) -> Channel:
    """Counts, in the state of a channel, the bytes that a worker sends through it.

    Each call adds the size of the channel's message (see `gmc_jax.message_bits`). So
    the count is right for methods that send at some steps only, for steps that are
    skipped, and after a checkpoint. `gmc_jax.metrics` reads it. Counting sends nothing.

    In a schedule of channels, count each channel by itself:
    `join_channels([count_bytes(a), count_bytes(b)], ...)`. Around `join_channels`, each
    call counts as the largest message.

    Args:
      channel: any channel.

    Returns:
      The channel, with `CountBytesState` around its state.

    Raises:
      TypeError: if `channel` is not a channel.

    Guarantees:
      `mean` and `lost` are those of the channel. The count is exact below 2^64.
    """
    checks.channel(channel=channel)

    def init(params):
        return CountBytesState(jnp.zeros(2, jnp.uint32), channel.init(params))

    def average(tree, state):
        mean, lost, inner = call(channel, tree, state.inner)
        sent = add_to_count(state.sent, -(-channel.bits(tree) // 8))
        return mean, lost, mark_updated(CountBytesState(sent, inner))

    return Channel(init, average, channel.bits, channel.axis_name, channel.entries)
