"""Who meets how often through which channel, as far as a link can tell methods apart.

To the link GMC, EF-SGD and DGC are one: a channel at every step. Local SGD, SlowMo and
DiLoCo are one: a dense channel, now and then.
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
from gmc_jax.costs.compression_cost import FREE, Encoding, Encodings, encoding_at
from gmc_jax.costs.traffic import Traffic, link_traffic
from gmc_jax.graphs import topologies
from gmc_jax.utils import checks
from gmc_jax.utils.trees import entries_in

_SENDING = {
    "top_k": (all_gather, top_k),
    "sampled_top_k": (all_gather, sampled_top_k),
    "random_block": (all_reduce, random_block),
}
_RESET = 1 / 16  # The share of the entries in a reset of CSER, as in its paper.


class Sync(NamedTuple):
    """A channel, and how often workers meet in it.

    Attributes:
      channel: any channel.
      encoding: what its messages take to encode and to decode.
      period: steps from one meeting to the next, at least 1.
      workers: how many the channel is counted for, if not all: what goes to neighbours
        does not depend on who else there is, so that for `gossip` a topology of a few
        workers may stand for one of thousands.
    """

    channel: Channel
    encoding: Encoding = FREE
    period: int = 1
    workers: int | None = None


class Load(NamedTuple):
    """What a step costs beyond its computation, over any link.

    Attributes:
      traffic: what leaves a worker.
      encoding: seconds of encoding and decoding.
    """

    traffic: Traffic
    encoding: float

    def seconds(self, link: Link) -> float:
        """Encoding and communication, one after the other."""
        return self.encoding + self.traffic.seconds(link)


@dataclass(frozen=True)
class Pattern:
    """What a method does on the link.

    Attributes:
      name: in tables.
      meetings: the channels it averages through; two of them in CSER.
      ratio: the share of the entries that messages hold, or None for all of them.
      family: the pattern at another ratio, if there is one.

    Raises:
      TypeError: if a meeting is none, or has no channel.
      ValueError: if `ratio` does not lie in (0, 1], or a period or number of workers is
        not a whole number of at least 1.
    """

    name: str
    syncs: tuple[Sync, ...]
    ratio: float | None = None
    family: "Callable[[float], Pattern] | None" = None

    def __post_init__(self):
        """Refuses what is no pattern."""
        if not isinstance(self.name, str):
            raise TypeError(f"`name` must be text, but is {checks.shown(self.name)}.")
        if self.family is not None:
            checks.function(family=self.family)
        if self.ratio is not None:
            checks.known(ratio=self.ratio)
            checks.fraction(ratio=self.ratio)
        checks.several(syncs=self.syncs)
        for sync in self.syncs:
            if not isinstance(sync, Sync):
                raise TypeError(
                    "`meetings` must be of `Sync(channel)`, but one is "
                    f"{checks.shown(sync)}."
                )
            checks.channel(channel=sync.channel)
            checks.positive_int(period=sync.period)
            if sync.workers is not None:
                checks.positive_int(workers=sync.workers)

    def loads(self, params: Tree, workers: int) -> tuple[Load, Load]:
        """The mean over all steps, and the longest step, in which all meetings fall."""
        size = entries_in(params)
        mean, longest = [], []
        for channel, encoding, period, among in self.syncs:
            traffic = link_traffic(channel, params, among or workers)
            cost = (*traffic, encoding.seconds(size, traffic.bytes))
            longest.append(cost)
            mean.append([part / period for part in cost])
        return _sum(mean), _sum(longest)


DENSE = Pattern("dense all-reduce", (Sync(exact()),))
"""What others are compared with: `dmsgd`, or any optimizer on the mean gradient."""

Family: TypeAlias = Callable[[float], Pattern]
"""A pattern at a ratio."""


def compressed(
    name: str, encodings: Encodings, *, period: int = 1, per_leaf: bool = False
) -> Family:
    """Meetings through one of `top_k`, `sampled_top_k`, `random_block` at a ratio."""
    channel, compressor = _SENDING[name]
    label = f"GMC, {name}" if period == 1 else f"local, GMC of {name} every {period}"

    def at(ratio: float) -> Pattern:
        sent = channel(_traced_once(compressor(ratio)), per_leaf=per_leaf)
        sync = Sync(sent, encoding_at(encodings, name, ratio), period)
        return Pattern(label, (sync,), ratio, at)

    return at


def candidates(
    params: Tree,
    workers: int,
    ratios: Sequence[float],
    periods: Sequence[int],
    encodings: Encodings,
) -> list[Pattern]:
    """What there is to choose from; the dense mean first.

    Trees of 2^31 entries or more are compressed leaf by leaf. Between local steps the
    messages of blocks go with the first period. CSER's ratio is shared out as in its
    paper, half on steps and half on resets.
    """
    per_leaf = entries_in(params) >= 2**31
    families = [compressed(name, encodings, per_leaf=per_leaf) for name in _SENDING]
    families += [
        compressed("random_block", encodings, period=period, per_leaf=per_leaf)
        for period in periods[:1]
    ]
    signs = encoding_at(encodings, "scaled_sign", 1.0)  # Packed and unpacked alike.
    (dense,) = DENSE.syncs
    ring, pair = min(workers, 3), min(workers, 2)
    neighbours = Sync(gossip(topologies.ring(ring)), workers=ring)
    pushes = Sync(gossip(topologies.one_peer_exponential(pair)), workers=pair)
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
        Pattern("D-PSGD, ring", (neighbours,)),
        Pattern("SGP, one peer", (pushes,)),
    ]


def _cser(blocks: Family, ratio: float) -> Pattern:
    """Half of what is sent on steps, half on resets."""
    period = round(2 * _RESET / ratio)
    (step,), (reset,) = blocks(ratio / 2).syncs, blocks(_RESET).syncs
    syncs = (step._replace(period=1), reset._replace(period=period))
    return Pattern(f"CSER of blocks, reset every {period}", syncs, ratio)


def _sum(costs: Sequence[Sequence[float]]) -> Load:
    size, hops, encoding = (sum(column) for column in zip(*costs, strict=True))
    return Load(Traffic(size, hops), encoding)


def _traced_once(compressor: Compressor) -> Compressor:
    """So that leaves of one shape, of which large models have many, are traced once."""
    return compressor._replace(
        encode=jax.jit(compressor.encode),
        decode=jax.jit(compressor.decode, static_argnums=2),
    )
