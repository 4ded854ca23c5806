"""Several channels, each for a stretch of calls."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmc_jax.channels._calls import call, calls_are_named
from gmc_jax.channels.compressed import (
    CompressedAverage,
    average_vectors,
    compressed_averages,
)
from gmc_jax.channels.delayed_messages import (
    DelayedMessagesState,
    add_in_flight,
    take_in_flight,
)
from gmc_jax.channels.sharded.joined import can_join, joined_vectors
from gmc_jax.core import Channel, Tree
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.trees import find


class JoinedState(NamedTuple):
    """The state of joined channels.

    Attributes:
      step: int32, calls so far; the same on all workers.
      inner: the states of all channels, in order; each counts its own calls.
    """

    step: jax.Array
    inner: tuple[Tree, ...]


@call_repr
def join_channels(channels: Sequence[Channel], boundaries: Sequence[int]) -> Channel:
    """Averages through one channel after another, as `optax.join_schedules` does.

    The first `boundaries[0]` calls go through `channels[0]`. The calls from then on and
    before `boundaries[1]` go through `channels[1]`, and so on. So a ratio can change,
    or training can begin dense, and each stretch has messages of a fixed size. A
    conditional on the number of calls selects the channel, the same on all workers: a
    call runs the collectives of one channel. Each channel counts its own calls from 0,
    and draws by that count.

    Args:
      channels: one for each stretch, over the same axis.
      boundaries: the calls at which the next channel takes over, whole numbers of at
        least 1, ascending; one fewer than channels. Inside `accumulate` a call is a
        step of the method, not of the loop. What `all_gather` or `all_reduce` with a
        delay has in flight at a boundary is added to the tree of the next call.
        Messages that `gossip` with a delay has in flight are not received.

    Returns:
      A channel with `JoinedState`. Its bits are those of the channel that sends most;
      `message_bits` of a method counts each channel in its stretch. Channels that send
      different numbers of entries without indices cannot be counted together. Count
      each channel by itself, `join_channels([count_entries(a), count_entries(b)],
      boundaries)`, and `relative_cost` adds the counts up.

    Raises:
      TypeError: if one of `channels` is not a channel, or `channels` or `boundaries` is
        not a list.
      ValueError: if there is no channel, `boundaries` is not one shorter than
        `channels`, holds anything but whole numbers of at least 1, or is not ascending,
        or the channels average over different axes; from `entries`, and so from
        `count_entries(...).init`, if the channels send different numbers of entries.

    Example:
      The warm-up of DGC, with one epoch for each ratio but the last:

      >>> import gmc_jax
      >>> epoch = 390
      >>> ratios = [0.25, 0.0625, 0.015625, 0.004, 0.001]
      >>> channel = gmc_jax.join_channels(
      ...     [
      ...         gmc_jax.all_gather(gmc_jax.top_k(ratio), per_leaf=True)
      ...         for ratio in ratios
      ...     ],
      ...     boundaries=[epoch, 2 * epoch, 3 * epoch, 4 * epoch],
      ... )
      >>> tx = gmc_jax.dgc(0.1, channel)

    Guarantees:
      The law of channels, if each channel obeys it.
      A call returns what the channel of its stretch returns, and changes the state of
      that channel alone. It sends the message of that channel alone. The first call of
      a stretch also takes what the channel before has in flight out of its state.

    References:
      Lin et al., "Deep Gradient Compression", ICLR 2018, section 3.3 (warm-up
      training).
    """
    checks.several(channels=channels, boundaries=boundaries)
    channels, boundaries = tuple(channels), tuple(boundaries)
    checks.channel(**{f"channels[{i}]": one for i, one in enumerate(channels)})
    checks.positive_int(**{f"boundaries[{i}]": at for i, at in enumerate(boundaries)})
    _check_stretches(channels, boundaries)

    def init(params):
        inner = tuple(channel.init(params) for channel in channels)
        return JoinedState(jnp.zeros((), jnp.int32), inner)

    def average(tree, state):
        stretch = jnp.sum(state.step >= jnp.array(boundaries, jnp.int32))
        step = jnp.asarray(optax.safe_increment(state.step))
        averages = compressed_averages(channels)
        # Where calls are counted, each channel must be called by itself.
        if averages is not None and not calls_are_named():
            mean, lost, inner = _average_vectors(averages, tree, state, stretch)
            return mean, lost, JoinedState(step, inner)

        def through(place: int) -> tuple[Tree, Tree, tuple[Tree, ...]]:
            inner = list(state.inner)
            if not place or not find(inner[place - 1], DelayedMessagesState):
                mean, lost, inner[place] = call(channels[place], tree, inner[place])
                return mean, lost, tuple(inner)
            late, inner[place - 1] = take_in_flight(inner[place - 1])
            total, rounding = add_in_flight(tree, late, jnp.array(True))
            mean, lost, inner[place] = call(channels[place], total, inner[place])
            return mean, optax.tree.add(lost, rounding), tuple(inner)

        branches = [partial(through, place) for place in range(len(channels))]
        mean, lost, inner = jax.lax.switch(stretch, branches)
        return mean, lost, JoinedState(step, inner)

    def bits(tree):
        return max(channel.bits(tree) for channel in channels)

    def entries(tree):
        numbers = [channel.entries(tree) for channel in channels]
        if len(set(numbers)) > 1:
            raise ValueError(
                "`channels` must send the same number of entries without indices to be "
                f"counted together, got {numbers} (None: with indices). Count each "
                "channel by itself: `join_channels([count_entries(a), "
                "count_entries(b)], ...)`, not `count_entries(join_channels([a, b], "
                "...))`."
            )
        return numbers[0]

    return Channel(init, average, bits, channels[0].axis_name, entries)


def _average_vectors(
    averages: list[CompressedAverage],
    tree: Tree,
    state: JoinedState,
    stretch: jax.Array,
) -> tuple[Tree, Tree, tuple[Tree, ...]]:
    """Averages through one of several compressed channels.

    They flatten and restore the tree in the same way, so this is done once for all, and
    compiled once. The conditional selects among what they do with the vectors.
    """
    steps = [own.step for own in state.inner]

    def on_vectors(shards, tree, vectors, step, stretch, *steps):
        del step
        branches = [
            partial(average.on_vectors, shards, tree, vectors, own)
            for average, own in zip(averages, steps, strict=True)
        ]
        return jax.lax.switch(stretch, branches)

    for average in averages:
        average.check(tree)
    joins = all(average.takes_joined for average in averages) and can_join(tree)
    mean, lost = average_vectors(
        on_vectors,
        averages[0].per_leaf,
        tree,
        state.step,
        stretch,
        *steps,
        flatten_on_cpu=joined_vectors if joins else None,
    )
    inner = [
        own._replace(step=jnp.where(stretch == place, own.step + 1, own.step))
        for place, own in enumerate(state.inner)
    ]
    return mean, lost, tuple(inner)


def _check_stretches(
    channels: tuple[Channel, ...], boundaries: tuple[int, ...]
) -> None:
    if len(channels) != len(boundaries) + 1:
        raise ValueError(
            "`boundaries` must be one fewer than `channels`, got "
            f"{len(boundaries)} for {len(channels)} channels; each is the call at "
            "which the next channel takes over."
        )
    if any(later <= at for at, later in pairwise(boundaries)):
        raise ValueError(
            f"`boundaries` must be ascending, got {list(boundaries)}; a channel would "
            "have no calls."
        )
    names = {channel.axis_name for channel in channels}
    if len(names) > 1:
        raise ValueError(
            "`channels` must average over the same axis, got the named axes "
            f"{sorted(names)}. Pass the same `axis_name` to all of them."
        )
