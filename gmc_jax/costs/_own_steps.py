"""Patterns of methods whose workers take steps of their own."""

from __future__ import annotations

import math

from gmc_jax.channels.exact import exact
from gmc_jax.channels.gossip import gossip
from gmc_jax.channels.mean_of_senders import mean_of_senders
from gmc_jax.costs._every_step import through
from gmc_jax.costs.compression_cost import (
    SELECTIONS,
    CompressionCost,
    CompressionCosts,
    cost_at,
)
from gmc_jax.costs.expressions import Templates, templates, written
from gmc_jax.costs.patterns import Pattern, Sync
from gmc_jax.graphs import topologies

_FRAGMENTS = 4


def sparse_loco(
    ratio: float,
    period: int,
    compression_costs: CompressionCosts,
    per_leaf: bool,
    over: Templates,
) -> Pattern:
    """Makes SparseLoCo, with values as wide as the parameters."""
    sync, text = through(
        lambda code: mean_of_senders(code, per_leaf=per_leaf),
        SELECTIONS["chunked_top_k"](ratio),
    )
    entry, byte = cost_at(compression_costs, "chunked_top_k", ratio)
    # It decodes what was sent, and how many workers sent it.
    cost = CompressionCost(entry, 2 * byte)
    return Pattern(
        f"SparseLoCo every {period}",
        (sync._replace(cost=cost, period=period),),
        ratio,
        expression=f"gmc_jax.sparse_loco({over.inner}, {text}, period={period})",
        selection="largest",
        caution=over.alone if period > 1 else "",
    )


def local(period: int, over: Templates) -> list[Pattern]:
    """Makes the methods that average all parameters, now and then."""
    fragments = min(_FRAGMENTS, period)
    whole = Sync(exact(), period=period)
    parts = whole._replace(fragments=fragments)
    streaming = f"Streaming DiLoCo, {fragments} parts every {period}"
    caution = over.alone if period > 1 else ""
    inside = f"{over.inner}, gmc_jax.exact(), period={period}"

    def streamed(delay: int) -> str:
        options = f"fragments={fragments}, delay={delay}"
        return f"gmc_jax.streaming_diloco({inside}, {options})"

    return [
        Pattern(
            f"{over.local_label} every {period}",
            (whole,),
            expression=over.local.format("gmc_jax.exact()", period=period),
            caution=caution,
        ),
        Pattern(
            f"CoCoD-SGD every {period}",
            (whole._replace(delay=period),),
            expression=f"gmc_jax.cocod_sgd({inside})",
            caution=caution,
        ),
        Pattern(streaming, (parts,), expression=streamed(0), caution=caution),
        Pattern(
            f"{streaming}, delay 1",
            (parts._replace(delay=1),),
            expression=streamed(1),
            caution=caution,
        ),
    ]


def never_meeting(steps: int, optimizer: str) -> Pattern:
    """Makes the baseline: workers train alone and average once, at the end."""
    exact_mean, over = exact(), templates(optimizer)
    text = over.local.format(written(exact_mean), period=steps)
    return Pattern("never meeting", (Sync(exact_mean, period=steps),), expression=text)


def of_neighbours(workers: int, over: Templates) -> list[Pattern]:
    """Makes the methods that average with neighbours.

    In a ring the difference between two halves fades by a factor of 1 - gap in a step,
    so that news takes 1 / gap steps. With one peer at a step, at growing distances, it
    takes the binary logarithm of the number of workers.
    """
    ring, pair = min(workers, 3), min(workers, 2)
    peers = topologies.one_peer_exponential(pair)
    gap = 2 / 3 * (1 - math.cos(2 * math.pi / workers))
    around = max(0.0, 1 / gap - 1) if workers > 1 else 0.0
    doubling = max(0.0, math.ceil(math.log2(workers)) - 1.0)
    exponential = f"gmc_jax.topologies.one_peer_exponential({workers})"
    return [
        Pattern(
            "D-PSGD, ring",
            (Sync(gossip(topologies.ring(ring)), workers=ring),),
            expression=over.ring.format(f"gmc_jax.topologies.ring({workers})"),
            spread=around,
        ),
        Pattern(
            "SGP, one peer",
            (Sync(gossip(peers), workers=pair),),
            expression=over.peer.format(exponential),
            spread=doubling,
        ),
        Pattern(
            "SGP, one peer, delay 1",
            (Sync(gossip(peers, delay=1), workers=pair, delay=1),),
            expression=over.late_peer.format(exponential),
            spread=doubling,
        ),
    ]
