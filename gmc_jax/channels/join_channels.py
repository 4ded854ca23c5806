"""One channel after another, each for a stretch of steps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmc_jax.channels._calls import call
from gmc_jax.core import Channel, Tree
from gmc_jax.utils import checks
from gmc_jax.utils.described import described


class JoinedState(NamedTuple):
    """The state of channels that follow one another.

    Attributes:
      step: int32, how often they have averaged; the same on all workers.
      inner: the states of all channels, in order; each counts its own calls.
    """

    step: jax.Array
    inner: tuple[Tree, ...]


@described
def join_channels(channels: Sequence[Channel], boundaries: Sequence[int]) -> Channel:
    """Averages through one channel after another, as `optax.join_schedules` does.

    The first `boundaries[0]` calls go through `channels[0]`, those from then on and
    before `boundaries[1]` through `channels[1]`, and so on: a ratio that changes, or a
    dense beginning, with messages of a fixed size in each stretch. Which channel it is
    is a conditional on the number of calls, the same on all workers, so in each call
    the collectives of one channel run and those of the others do not. Each channel
    counts its own calls from 0, and draws by that count.

    Args:
      channels: one for each stretch, over the same axis.
      boundaries: the calls at which the next channel takes over, whole numbers of at
        least 1, ascending; one fewer than channels. Behind `accumulate` a call is a
        step of the method, not of the loop. What `gossip` with a delay has in flight at
        a boundary does not arrive.

    Returns:
      A channel whose state is `JoinedState`. Its bits are those of the channel that
      sends most; `message_bits` of a method through it counts each in its stretch.
      Where the channels differ in whether, or how many, entries travel without indices,
      no common count can be kept: count each channel by itself,
      `join_channels([count_entries(a), count_entries(b)], boundaries)`, and
      `relative_cost` adds the counts up.

    Raises:
      TypeError: if one of `channels` is no channel, or they or `boundaries` are no
        list.
      ValueError: if there is no channel, the boundaries are not as many as they must
        be, not whole numbers of at least 1 or not ascending, or the channels average
        over different axes; from `entries`, and so from `count_entries(...).init`, if
        the channels send different numbers of entries.

    Example:
      The warm-up of DGC, an epoch for each ratio but the last, which stays:

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
      The law of channels, where each channel obeys it.
      A call returns what the channel of its stretch returns, whose state alone moves.
      Nothing is sent but the message of that channel.

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
        def through(place: int) -> tuple[Tree, Tree, tuple[Tree, ...]]:
            own = state.inner[place]
            mean, lost, own = call(channels[place], tree, own)
            before, after = state.inner[:place], state.inner[place + 1 :]
            return mean, lost, (*before, own, *after)

        stretch = jnp.sum(state.step >= jnp.array(boundaries, jnp.int32))
        branches = [partial(through, place) for place in range(len(channels))]
        mean, lost, inner = jax.lax.switch(stretch, branches)
        step = jnp.asarray(optax.safe_increment(state.step))
        return mean, lost, JoinedState(step, inner)

    def bits(tree):
        return max(channel.bits(tree) for channel in channels)

    def entries(tree):
        numbers = [channel.entries(tree) for channel in channels]
        if len(set(numbers)) > 1:
            raise ValueError(
                "`join_channels` has no common number of entries, since its `channels` "
                f"send {numbers} without indices (None: with them). Count each "
                "channel by itself: `join_channels([count_entries(a), "
                "count_entries(b)], ...)`, not `count_entries(join_channels([a, b], "
                "...))`."
            )
        return numbers[0]

    return Channel(init, average, bits, channels[0].axis_name, entries)


def _check_stretches(
    channels: tuple[Channel, ...], boundaries: tuple[int, ...]
) -> None:
    if len(channels) != len(boundaries) + 1:
        raise ValueError(
            "`boundaries` are where the next of the `channels` takes over, so there "
            f"must be one fewer of them, but there are {len(boundaries)} for "
            f"{len(channels)} channels."
        )
    if any(later <= at for at, later in pairwise(boundaries)):
        raise ValueError(
            "`boundaries` must be ascending, or a channel would have no calls, but are "
            f"{list(boundaries)}."
        )
    names = {channel.axis_name for channel in channels}
    if len(names) > 1:
        raise ValueError(
            "`channels` must average over the same workers, but are over the named "
            f"axes {sorted(names)}. Pass the same `axis_name` to all of them."
        )
