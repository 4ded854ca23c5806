"""Patterns: which channels a method averages through, and how often.

Methods with the same pattern load the link equally. GMC, EF-SGD and DGC average through
one channel at every step. Local SGD, SlowMo and DiLoCo average densely every few steps,
Streaming DiLoCo one fragment at a time. With a delay, messages travel beside the
computation of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from gmc_jax.channels.exact import exact
from gmc_jax.clocks.link import Link
from gmc_jax.core import Channel, Tree
from gmc_jax.costs.compression_cost import FREE, CompressionCost
from gmc_jax.costs.traffic import Traffic, link_traffic
from gmc_jax.utils import checks
from gmc_jax.utils.trees import entries_in

_NOTHING = Traffic(0.0, 0.0)


class Load(NamedTuple):
    """What a step costs beyond its computation, before a link is chosen.

    Attributes:
      traffic: the bytes and hops of a worker.
      encoding: seconds of encoding and decoding.
      late: the part of the traffic that travels beside the computation.
      beside: the share of a step's computation beside which it travels, at most 1.
    """

    traffic: Traffic
    encoding: float
    late: Traffic = _NOTHING
    beside: float = 0.0

    def times(self, count: float, steps: float = 1) -> Load:
        """The load of a step on average, where `steps` have this one `count` times."""
        traffic, late = (
            Traffic(*(count * part / steps for part in parts))
            for parts in (self.traffic, self.late)
        )
        beside = count * self.beside / steps
        return Load(traffic, count * self.encoding / steps, late, beside)

    def hidden(self, link: Link, step_time: float) -> float:
        """The seconds on the link that pass beside `step_time` of computation."""
        return min(self.late.seconds(link), self.beside * step_time)

    def seconds(self, link: Link, step_time: float) -> float:
        """The seconds that a step takes beyond `step_time`, its computation.

        Encoding, and communication that is not late, follow the computation one after
        another.
        """
        waited = self.traffic.seconds(link) - self.hidden(link, step_time)
        return self.encoding + waited


class Sync(NamedTuple):
    """A channel, and how often workers synchronise through it.

    Attributes:
      channel: any channel.
      cost: the cost of encoding and decoding its messages.
      period: steps from one synchronisation to the next, at least 1.
      workers: the number of workers to count the traffic for; None for all. The traffic
        between neighbours does not depend on the number of workers. So for `gossip` a
        topology of a few workers may stand for one of thousands.
      fragments: the number of fragments of the parameters, of equal size, that
        synchronise one after another in each period; at most `period`.
      delay: steps from sending to receiving, such as the `delay` of `all_gather` or of
        `streaming_diloco`. With 0 the step waits for its messages. Otherwise they
        travel beside the computation of one step, however long the delay, and the step
        waits for the rest.
      shapes: a tree to count the traffic for, in the place of the parameters, which
        have as many of it as there are entries; None for the parameters. Through
        `low_rank` the bytes depend on the shapes of matrices.
    """

    channel: Channel
    cost: CompressionCost = FREE
    period: int = 1
    workers: int | None = None
    fragments: int = 1
    delay: int = 0
    shapes: Tree = None

    def event(self, params: Tree, workers: int) -> Load:
        """The load of one synchronisation, of a fragment."""
        size, shapes = entries_in(params), self.shapes
        shapes = params if shapes is None else shapes
        times = size / entries_in(shapes)
        sent, hops = link_traffic(self.channel, shapes, self.workers or workers)
        encoding = self.cost.seconds(size, times * sent) / self.fragments
        traffic = Traffic(times * sent / self.fragments, hops)
        if not self.delay:
            return Load(traffic, encoding)
        return Load(traffic, encoding, late=traffic, beside=1.0)


@dataclass(frozen=True)
class Pattern:
    """Which channels a method averages through, and how often.

    Attributes:
      name: the name that tables show.
      syncs: the channels it averages through, with their periods; two in CSER.
      ratio: the share of the entries that messages hold; None for all of them.
      family: a function from another ratio to the same pattern at that ratio; None for
        a pattern without a ratio to choose.
      expression: Python that makes a method with this pattern, with the names
        `gmc_jax`, `optax` and `rate`; empty if there is none to show.
      spread: further steps until what arrived at some workers has reached all, such as
        through neighbours; 0 where all workers receive it.
      selection: where messages hold some of the entries, which of them: the `largest`,
        or those that are `drawn` without looking at them.
      caution: why the pattern is never called safe, whatever its lag; empty if there is
        no reason.

    Raises:
      TypeError: if `syncs` holds something that is no `Sync` of a channel, `name`,
        `expression` or `caution` is no text, or `family` no function.
      ValueError: if `ratio` does not lie in (0, 1], a period, a number of workers or of
        fragments is not a whole number of at least 1, a delay not one of at least 0,
        there are more fragments than steps in a period, `spread` is negative or not
        finite, or `selection` is neither of the two.
    """

    name: str
    syncs: tuple[Sync, ...]
    ratio: float | None = None
    family: Callable[[float], Pattern] | None = None
    expression: str = ""
    spread: float = 0.0
    selection: Literal["drawn", "largest"] = "drawn"
    caution: str = ""

    def __post_init__(self):
        """Checks all attributes."""
        for name in ("name", "expression", "caution"):
            text = getattr(self, name)
            if not isinstance(text, str):
                raise TypeError(f"`{name}` must be text, got {checks.shown(text)}.")
        checks.known(spread=self.spread)
        checks.nonnegative(spread=self.spread)
        if self.selection not in ("drawn", "largest"):
            raise ValueError(
                "`selection` must be 'drawn' or 'largest', got "
                f"{checks.shown(self.selection)}."
            )
        if self.family is not None:
            checks.function(family=self.family)
        if self.ratio is not None:
            checks.known(ratio=self.ratio)
            checks.fraction(ratio=self.ratio)
        checks.several(syncs=self.syncs)
        for sync in self.syncs:
            if not isinstance(sync, Sync):
                raise TypeError(
                    f"`syncs` must hold only `Sync`s, got {checks.shown(sync)}. Wrap "
                    "each channel: `Sync(channel)`."
                )
            checks.channel(channel=sync.channel)
            checks.positive_int(period=sync.period)
            if sync.workers is not None:
                checks.positive_int(workers=sync.workers)
            checks.positive_int(fragments=sync.fragments)
            checks.nonnegative_int(delay=sync.delay)
            if sync.fragments > sync.period:
                raise ValueError(
                    f"`fragments` must be at most `period`, {sync.period}, got "
                    f"{sync.fragments}; one fragment synchronises at a step."
                )

    def loads(self, params: Tree, workers: int) -> tuple[Load, Load]:
        """The load of the mean step, and of the longest, through all channels."""
        events = [sync.event(params, workers) for sync in self.syncs]
        mean = [
            event.times(sync.fragments, sync.period)
            for sync, event in zip(self.syncs, events, strict=True)
        ]
        return _sum(mean), _sum(events)


DENSE = Pattern(
    "dense all-reduce",
    (Sync(exact()),),
    expression="gmc_jax.dmsgd(rate, gmc_jax.exact())",
)
"""The pattern that others are compared with: the exact mean at every step."""

Family: TypeAlias = Callable[[float], Pattern]
"""A function from a ratio to a pattern."""


def _sum(loads: Sequence[Load]) -> Load:
    """The load of several channels. All that is late travels beside one computation."""
    traffic, encoding, late, beside = zip(*loads, strict=True)
    parts = (Traffic(*map(sum, zip(*part, strict=True))) for part in (traffic, late))
    return Load(next(parts), sum(encoding), next(parts), min(1.0, sum(beside)))
