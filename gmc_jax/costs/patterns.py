"""Patterns: which channels a method averages through, and how often.

Methods with the same pattern load the link equally. GMC, EF-SGD and DGC average through
one channel at every step. Local SGD, SlowMo and DiLoCo average densely every few steps,
Streaming DiLoCo one fragment at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import jax

from gmc_jax.channels.all_gather import all_gather
from gmc_jax.channels.all_reduce import all_reduce
from gmc_jax.channels.exact import exact
from gmc_jax.channels.gossip import gossip
from gmc_jax.channels.majority_vote import majority_vote
from gmc_jax.clocks.link import Link
from gmc_jax.compressors.random_block import random_block
from gmc_jax.compressors.sampled_top_k import sampled_top_k
from gmc_jax.compressors.top_k import top_k
from gmc_jax.core import Channel, Compressor, Tree
from gmc_jax.costs.compression_cost import (
    FREE,
    CompressionCost,
    CompressionCosts,
    cost_at,
)
from gmc_jax.costs.traffic import Traffic, link_traffic
from gmc_jax.graphs import topologies
from gmc_jax.utils import checks
from gmc_jax.utils.trees import entries_in

_SENDING = {
    "top_k": (all_gather, top_k),
    "sampled_top_k": (all_gather, sampled_top_k),
    "random_block": (all_reduce, random_block),
}
_FRAGMENTS = 4
_RESET = 1 / 16  # The share of the entries that a reset of CSER sends, from its paper.


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
    """

    channel: Channel
    cost: CompressionCost = FREE
    period: int = 1
    workers: int | None = None
    fragments: int = 1


class Load(NamedTuple):
    """What a step costs beyond its computation, before a link is chosen.

    Attributes:
      traffic: the bytes and hops of a worker.
      encoding: seconds of encoding and decoding.
    """

    traffic: Traffic
    encoding: float

    def seconds(self, link: Link) -> float:
        """The seconds of encoding, decoding and communication, one after another."""
        return self.encoding + self.traffic.seconds(link)


@dataclass(frozen=True)
class Pattern:
    """Which channels a method averages through, and how often.

    Attributes:
      name: the name that tables show.
      syncs: the channels it averages through, with their periods; two in CSER.
      ratio: the share of the entries that messages hold; None for all of them.
      family: a function from another ratio to the same pattern at that ratio; None for
        a pattern without a ratio to choose.

    Raises:
      TypeError: if `syncs` holds something that is no `Sync` of a channel, `name` is no
        text, or `family` no function.
      ValueError: if `ratio` does not lie in (0, 1], a period, a number of workers or of
        fragments is not a whole number of at least 1, or there are more fragments than
        steps in a period.
    """

    name: str
    syncs: tuple[Sync, ...]
    ratio: float | None = None
    family: "Callable[[float], Pattern] | None" = None

    def __post_init__(self):
        """Checks all attributes."""
        if not isinstance(self.name, str):
            raise TypeError(f"`name` must be text, got {checks.shown(self.name)}.")
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
            if sync.fragments > sync.period:
                raise ValueError(
                    f"`fragments` must be at most `period`, {sync.period}, got "
                    f"{sync.fragments}; one fragment synchronises at a step."
                )

    def loads(self, params: Tree, workers: int) -> tuple[Load, Load]:
        """The load of the mean step, and of the longest, through all channels."""
        size = entries_in(params)
        mean, longest = [], []
        for channel, cost, period, counted, fragments in self.syncs:
            sent, hops = link_traffic(channel, params, counted or workers)
            load = (sent / fragments, hops, cost.seconds(size, sent) / fragments)
            longest.append(load)
            mean.append([fragments * part / period for part in load])
        return _sum(mean), _sum(longest)


DENSE = Pattern("dense all-reduce", (Sync(exact()),))
"""The pattern that others are compared with: the exact mean at every step."""

Family: TypeAlias = Callable[[float], Pattern]
"""A function from a ratio to a pattern."""


def compressed(
    name: str,
    compression_costs: CompressionCosts,
    *,
    period: int = 1,
    per_leaf: bool = False,
) -> Family:
    """Makes the patterns of GMC through one compressor, at any ratio.

    `name` is `top_k`, `sampled_top_k` or `random_block`.
    """
    channel, compressor = _SENDING[name]
    label = f"GMC, {name}" if period == 1 else f"local, GMC of {name} every {period}"

    def at(ratio: float) -> Pattern:
        sent = channel(_traced_once(compressor(ratio)), per_leaf=per_leaf)
        sync = Sync(sent, cost_at(compression_costs, name, ratio), period)
        return Pattern(label, (sync,), ratio, at)

    return at


def candidates(
    params: Tree,
    workers: int,
    ratios: Sequence[float],
    periods: Sequence[int],
    compression_costs: CompressionCosts,
) -> list[Pattern]:
    """Lists the patterns that `plan` compares, the dense mean first.

    Trees of 2^31 entries or more are compressed leaf by leaf. GMC between local steps
    has the first of the periods alone. CSER spends half of its ratio on steps and half
    on resets, as in its paper.
    """
    per_leaf = entries_in(params) >= 2**31
    families = [
        compressed(name, compression_costs, per_leaf=per_leaf) for name in _SENDING
    ]
    families += [
        compressed("random_block", compression_costs, period=period, per_leaf=per_leaf)
        for period in periods[:1]
    ]
    signs = cost_at(
        compression_costs, "scaled_sign", 1.0
    )  # Votes are packed like signs.
    (dense,) = DENSE.syncs
    ring, pair = min(workers, 3), min(workers, 2)
    neighbours = Sync(gossip(topologies.ring(ring)), workers=ring)
    one_peer = Sync(gossip(topologies.one_peer_exponential(pair)), workers=pair)
    return [
        DENSE,
        *(family(ratio) for family in families for ratio in ratios),
        *(_cser(families[2], ratio) for ratio in ratios if ratio <= _RESET),
        Pattern("signSGD, Signum, majority vote", (Sync(majority_vote(), signs),)),
        *(
            Pattern(
                f"local SGD, SlowMo every {period}", (dense._replace(period=period),)
            )
            for period in periods
        ),
        *(_streaming(period) for period in periods),
        Pattern("D-PSGD, ring", (neighbours,)),
        Pattern("SGP, one peer", (one_peer,)),
    ]


def _cser(blocks: Family, ratio: float) -> Pattern:
    """Makes CSER with half of the ratio spent on steps and half on resets."""
    period = round(2 * _RESET / ratio)
    (step,), (reset,) = blocks(ratio / 2).syncs, blocks(_RESET).syncs
    syncs = (step._replace(period=1), reset._replace(period=period))
    return Pattern(f"CSER of blocks, reset every {period}", syncs, ratio)


def _streaming(period: int) -> Pattern:
    """Makes Streaming DiLoCo of few fragments, each of which waits for many hops."""
    fragments = min(_FRAGMENTS, period)
    sync = Sync(exact(), period=period, fragments=fragments)
    return Pattern(f"Streaming DiLoCo, {fragments} parts every {period}", (sync,))


def _sum(loads: Sequence[Sequence[float]]) -> Load:
    size, hops, encoding = (sum(column) for column in zip(*loads, strict=True))
    return Load(Traffic(size, hops), encoding)


def _traced_once(compressor: Compressor) -> Compressor:
    """Makes a compressor that is traced once for all leaves of one shape."""
    return compressor._replace(
        encode=jax.jit(compressor.encode),
        decode=jax.jit(compressor.decode, static_argnums=2),
    )
