"""The patterns that a plan compares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import jax

from gmc_jax.channels.all_gather import all_gather
from gmc_jax.channels.all_reduce import all_reduce
from gmc_jax.channels.exact import exact
from gmc_jax.channels.gossip import gossip
from gmc_jax.channels.low_rank import low_rank
from gmc_jax.channels.majority_vote import majority_vote
from gmc_jax.channels.mean_of_senders import mean_of_senders
from gmc_jax.channels.two_phase import two_phase
from gmc_jax.core import Compressor, Tree
from gmc_jax.costs.compression_cost import (
    CODES,
    MATRIX,
    RANKS,
    SELECTIONS,
    CompressionCost,
    CompressionCosts,
    cost_at,
)
from gmc_jax.costs.patterns import DENSE, Family, Pattern, Sync
from gmc_jax.graphs import topologies
from gmc_jax.utils.trees import entries_in

_FRAGMENTS = 4
_RESET = 1 / 16  # The share of the entries that a reset of CSER sends, from its paper.
_LABELS = {
    "quantised": "GMC, quantised chunked_top_k",
    "qsgd(7)": "QSGD",
    "terngrad": "TernGrad",
}
_BOTH_WAYS = ("integers(8)", "scaled_sign")
_LATE = ("top_k", "random_block")


def compressed(
    name: str,
    compression_costs: CompressionCosts,
    *,
    period: int = 1,
    per_leaf: bool = False,
    delay: int = 0,
) -> Family:
    """Makes the patterns of GMC through one compressor, at any ratio.

    `name` is `top_k`, `sampled_top_k`, `random_block`, `chunked_top_k` or `quantised`.
    """
    compressor = SELECTIONS[name]
    channel = all_reduce if name == "random_block" else all_gather
    label = _label(name) if period == 1 else f"local, GMC of {name} every {period}"
    label += f", delay {delay}" if delay else ""

    def at(ratio: float) -> Pattern:
        code = _traced_once(compressor(ratio))
        cost = cost_at(compression_costs, name, ratio)
        sent = channel(code, per_leaf=per_leaf, delay=delay)
        sync = Sync(sent, cost, period, delay=delay)
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

    Trees of 2^31 entries or more are compressed leaf by leaf. GMC between local steps,
    and SparseLoCo, have the first of the periods alone. CSER spends half of its ratio
    on steps and half on resets, as in its paper. If no leaf is a matrix, PowerSGD is
    planned for square ones. A few patterns name their family, for which `plan` searches
    the break-even ratio; it would take long for all.
    """
    costs, per_leaf = compression_costs, entries_in(params) >= 2**31

    def gmc(name: str, period: int = 1, delay: int = 0) -> Family:
        return compressed(name, costs, period=period, per_leaf=per_leaf, delay=delay)

    blocks = gmc("random_block")
    families = [
        *(gmc("top_k"), gmc("sampled_top_k"), blocks),
        *(gmc("random_block", period) for period in periods[:1]),
    ]
    others = [gmc("quantised"), *(gmc(name, delay=1) for name in _LATE)]
    return [
        DENSE,
        *(family(ratio) for family in families for ratio in ratios),
        *(replace(at(ratio), family=None) for at in others for ratio in ratios),
        *(_cser(blocks, ratio) for ratio in ratios if ratio <= _RESET),
        *(
            _sparse_loco(ratio, period, costs, per_leaf)
            for period in periods[:1]
            for ratio in ratios
        ),
        *(_gathered(name, costs, per_leaf) for name in CODES),
        *(_both_ways(name, costs, per_leaf, workers) for name in _BOTH_WAYS),
        *(_power_sgd(rank, costs, _matrices(params)) for rank in RANKS),
        # Votes are packed like signs.
        _pattern(
            "signSGD, Signum, majority vote",
            Sync(majority_vote(), cost_at(costs, "scaled_sign", 1.0)),
        ),
        *(pattern for period in periods for pattern in _local(period)),
        *_of_neighbours(workers),
    ]


def _pattern(name: str, *syncs: Sync) -> Pattern:
    return Pattern(name, syncs)


def _label(name: str) -> str:
    return _LABELS.get(name, f"GMC, {name}")


def _cser(blocks: Family, ratio: float) -> Pattern:
    """Makes CSER with half of the ratio spent on steps and half on resets."""
    period = round(2 * _RESET / ratio)
    (step,), (reset,) = blocks(ratio / 2).syncs, blocks(_RESET).syncs
    syncs = (step._replace(period=1), reset._replace(period=period))
    return Pattern(f"CSER of blocks, reset every {period}", syncs, ratio)


def _sparse_loco(
    ratio: float, period: int, compression_costs: CompressionCosts, per_leaf: bool
) -> Pattern:
    """Makes SparseLoCo, with values as wide as the parameters."""
    code = _traced_once(SELECTIONS["chunked_top_k"](ratio))
    entry, byte = cost_at(compression_costs, "chunked_top_k", ratio)
    # It decodes what was sent, and how many workers sent it.
    cost = CompressionCost(entry, 2 * byte)
    sync = Sync(mean_of_senders(code, per_leaf=per_leaf), cost, period)
    return Pattern(f"SparseLoCo every {period}", (sync,), ratio)


def _gathered(
    name: str, compression_costs: CompressionCosts, per_leaf: bool
) -> Pattern:
    """Makes the pattern of codes of all entries, sent to every worker."""
    channel = all_gather(_traced_once(CODES[name]()), per_leaf=per_leaf)
    return _pattern(_label(name), Sync(channel, cost_at(compression_costs, name, 1.0)))


def _both_ways(
    name: str, compression_costs: CompressionCosts, per_leaf: bool, workers: int
) -> Pattern:
    """Makes the pattern of codes that are averaged on one worker, and encoded again."""
    channel = two_phase(_traced_once(CODES[name]()), per_leaf=per_leaf)
    entry, byte = cost_at(compression_costs, name, 1.0)
    # A worker encodes all entries, and the means of its slice of them.
    cost = CompressionCost(entry * (1 + 1 / workers), byte)
    return _pattern(f"GMC, {name} both ways", Sync(channel, cost))


def _power_sgd(
    rank: int, compression_costs: CompressionCosts, matrices: Tree
) -> Pattern:
    cost = cost_at(compression_costs, "low_rank", rank)
    return _pattern(
        f"PowerSGD, rank {rank}", Sync(low_rank(rank), cost, shapes=matrices)
    )


def _local(period: int) -> list[Pattern]:
    """Makes the methods that average all parameters, now and then."""
    fragments = min(_FRAGMENTS, period)
    whole = Sync(exact(), period=period)
    parts = whole._replace(fragments=fragments)
    streaming = f"Streaming DiLoCo, {fragments} parts every {period}"
    return [
        _pattern(f"local SGD, SlowMo every {period}", whole),
        _pattern(f"CoCoD-SGD every {period}", whole._replace(delay=period)),
        _pattern(streaming, parts),
        _pattern(f"{streaming}, delay 1", parts._replace(delay=1)),
    ]


def _of_neighbours(workers: int) -> list[Pattern]:
    ring, pair = min(workers, 3), min(workers, 2)
    peers = topologies.one_peer_exponential(pair)
    return [
        _pattern("D-PSGD, ring", Sync(gossip(topologies.ring(ring)), workers=ring)),
        _pattern("SGP, one peer", Sync(gossip(peers), workers=pair)),
        _pattern(
            "SGP, one peer, delay 1",
            Sync(gossip(peers, delay=1), workers=pair, delay=1),
        ),
    ]


def _matrices(params: Tree) -> Tree:
    """The parameters, or a square matrix if none of them is one."""
    if any(len(leaf.shape) > 1 for leaf in jax.tree.leaves(params)):
        return params
    side = min(MATRIX, math.isqrt(entries_in(params)))
    return jax.ShapeDtypeStruct((side, side), "float32")


def _traced_once(compressor: Compressor) -> Compressor:
    """Makes a compressor that is traced once for all leaves of one shape."""
    return compressor._replace(
        encode=jax.jit(compressor.encode),
        decode=jax.jit(compressor.decode, static_argnums=2),
    )
