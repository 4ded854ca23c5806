"""Patterns of methods that synchronise at every step."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax

from gmc_jax.channels.all_gather import all_gather
from gmc_jax.channels.all_reduce import all_reduce
from gmc_jax.channels.low_rank import low_rank
from gmc_jax.channels.majority_vote import majority_vote
from gmc_jax.channels.two_phase import two_phase
from gmc_jax.compressors.random_block import random_block
from gmc_jax.core import Channel, Compressor, Tree
from gmc_jax.costs.compression_cost import (
    CODES,
    MATRIX,
    SELECTIONS,
    CompressionCost,
    CompressionCosts,
    cost_at,
)
from gmc_jax.costs.expressions import TEMPLATES, Templates, written
from gmc_jax.costs.patterns import Family, Pattern, Sync
from gmc_jax.utils.trees import entries_in

RESET = 1 / 16
"""The share of the entries that a reset of CSER sends, from its paper."""

_LABELS = {
    "quantised": "quantised chunked_top_k",
    "qsgd(7)": "QSGD",
    "terngrad": "TernGrad",
}
_UNBIASED = ("qsgd(7)", "terngrad")
# `equal_bytes` in `experiments/results`: on digits, where workers hold few labels each,
# votes of signs end 0.36 to 0.67 above dense; on text they end with it.
_VOTES = (
    "a vote forgets how large entries are; where the data of workers differ it stalls"
)
# `choices` there: over Adam, `top_k` at 1 % with a delay ends 0.34 above dense. Over
# momentum SGD it was not measured.
_LATE = "compressed messages that arrive a step late ended far above dense"
# `small_vit` there: 0.46 above dense, though news lags 2.5 % of the training.
_ERRORS_APART = "each worker takes its own errors as steps, until the next reset"


def compressed(
    name: str,
    compression_costs: CompressionCosts,
    *,
    period: int = 1,
    per_leaf: bool = False,
    delay: int = 0,
    over: Templates = TEMPLATES["sgd"],
) -> Family:
    """Makes the patterns of error feedback through one compressor, at any ratio.

    Over momentum SGD these are GMC's. `name` is `top_k`, `sampled_top_k`,
    `random_block`, `chunked_top_k` or `quantised`.
    """
    compressor = SELECTIONS[name]
    gather = all_reduce if name == "random_block" else all_gather
    label = f"{over.label}, {_LABELS.get(name, name)}"
    method = over.blocks if name == "random_block" else over.remembering
    if period > 1:
        label = f"local, GMC of {name} every {period}"
        outer = "gmc_jax.gmc(1.0, {}, momentum=0.5)"
        method = f"gmc_jax.periodic({over.inner}, {outer}, {period})"
    label += f", delay {delay}" if delay else ""
    caution = _LATE if delay else over.alone if period > 1 else ""
    selection = "drawn" if name == "random_block" else "largest"

    def at(ratio: float) -> Pattern:
        code = compressor(ratio)
        cost = cost_at(compression_costs, name, ratio)
        sync, text = through(
            lambda code: gather(code, per_leaf=per_leaf, delay=delay), code
        )
        sync = sync._replace(cost=cost, period=period, delay=delay)
        return Pattern(
            *(label, (sync,), ratio, at, method.format(text)),
            selection=selection,
            caution=caution,
        )

    return at


def through(
    channel: Callable[[Compressor], Channel], code: Compressor
) -> tuple[Sync, str]:
    """Makes a channel that is traced once, and writes it as Python."""
    return Sync(channel(traced_once(code))), written(channel(code))


def cser(blocks: Family, ratio: float) -> Pattern:
    """Makes CSER with half of the ratio spent on steps and half on resets."""
    period = round(2 * RESET / ratio)
    (step,), (reset,) = blocks(ratio / 2).syncs, blocks(RESET).syncs
    syncs = (step._replace(period=1), reset._replace(period=period))
    channels = (
        f"gmc_jax.all_reduce({written(random_block(share))}{seed})"
        for share, seed in ((ratio / 2, ""), (RESET, ", seed=1"))
    )
    return Pattern(
        f"CSER of blocks, reset every {period}",
        syncs,
        ratio,
        expression=f"gmc_jax.cser(rate, {', '.join(channels)}, period={period})",
        caution=_ERRORS_APART,
    )


def gathered(
    name: str, compression_costs: CompressionCosts, per_leaf: bool, over: Templates
) -> Pattern:
    """Makes the pattern of codes of all entries, sent to every worker."""
    sync, text = through(
        lambda code: all_gather(code, per_leaf=per_leaf), CODES[name]()
    )
    unbiased = name in _UNBIASED
    return Pattern(
        _LABELS[name] if unbiased else f"{over.label}, {name}",
        (sync._replace(cost=cost_at(compression_costs, name, 1.0)),),
        expression=(over.mean if unbiased else over.remembering).format(text),
    )


def both_ways(
    name: str,
    compression_costs: CompressionCosts,
    per_leaf: bool,
    workers: int,
    over: Templates,
) -> Pattern:
    """Makes the pattern of codes that are averaged on one worker, and encoded again."""
    sync, text = through(lambda code: two_phase(code, per_leaf=per_leaf), CODES[name]())
    entry, byte = cost_at(compression_costs, name, 1.0)
    # A worker encodes all entries, and the means of its slice of them.
    cost = CompressionCost(entry * (1 + 1 / workers), byte)
    return Pattern(
        f"{over.label}, {name} both ways",
        (sync._replace(cost=cost),),
        expression=over.remembering.format(text),
    )


def power_sgd(
    rank: int, compression_costs: CompressionCosts, matrices: Tree, over: Templates
) -> Pattern:
    channel, cost = low_rank(rank), cost_at(compression_costs, "low_rank", rank)
    return Pattern(
        f"PowerSGD, rank {rank}",
        (Sync(channel, cost, shapes=matrices),),
        expression=over.low_rank.format(written(channel)),
    )


def votes(compression_costs: CompressionCosts, over: Templates) -> Pattern:
    channel = majority_vote()
    # Votes are packed like signs.
    cost = cost_at(compression_costs, "scaled_sign", 1.0)
    return Pattern(
        over.votes_label,
        (Sync(channel, cost),),
        expression=over.votes.format(written(channel)),
        caution=_VOTES,
    )


def matrices(params: Tree) -> Tree:
    """The parameters, or a square matrix if none of them is one."""
    if any(len(leaf.shape) > 1 for leaf in jax.tree.leaves(params)):
        return params
    side = min(MATRIX, math.isqrt(entries_in(params)))
    return jax.ShapeDtypeStruct((side, side), "float32")


def traced_once(compressor: Compressor) -> Compressor:
    """Makes a compressor that is traced once for all leaves of one shape."""
    return compressor._replace(
        encode=jax.jit(compressor.encode),
        decode=jax.jit(compressor.decode, static_argnums=2),
    )
