"""The patterns that a plan compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gmc_jax.core import Tree
from gmc_jax.costs._every_step import (
    RESET,
    both_ways,
    cser,
    gathered,
    matrices,
    power_sgd,
    votes,
)
from gmc_jax.costs._every_step import compressed as compressed
from gmc_jax.costs._own_steps import local, of_neighbours, sparse_loco
from gmc_jax.costs._own_steps import never_meeting as never_meeting
from gmc_jax.costs.compression_cost import CODES, RANKS, CompressionCosts
from gmc_jax.costs.expressions import templates
from gmc_jax.costs.patterns import DENSE, Family, Pattern
from gmc_jax.utils.trees import entries_in

_BOTH_WAYS = ("integers(8)", "scaled_sign")
_LATE = ("top_k", "random_block")


def candidates(
    params: Tree,
    workers: int,
    ratios: Sequence[float],
    periods: Sequence[int],
    compression_costs: CompressionCosts,
    optimizer: str = "sgd",
) -> list[Pattern]:
    """Lists the patterns that `plan` compares, the dense mean first.

    Trees of 2^31 entries or more are compressed leaf by leaf. GMC between local steps,
    and SparseLoCo, have the first of the periods alone. CSER spends half of its ratio
    on steps and half on resets, as in its paper, and is momentum SGD's alone. If no
    leaf is a matrix, PowerSGD is planned for square ones. A few patterns name their
    family, for which `plan` searches the break-even ratio; it would take long for all.
    """
    costs, per_leaf = compression_costs, entries_in(params) >= 2**31
    over = templates(optimizer)

    def gmc(name: str, period: int = 1, delay: int = 0) -> Family:
        return compressed(
            name, costs, period=period, per_leaf=per_leaf, delay=delay, over=over
        )

    blocks = gmc("random_block")
    families = [
        *(gmc("top_k"), gmc("sampled_top_k"), blocks),
        *(gmc("random_block", period) for period in periods[:1]),
    ]
    others = [gmc("quantised"), *(gmc(name, delay=1) for name in _LATE)]
    errors_apart = [ratio for ratio in ratios if ratio <= RESET]
    return [
        DENSE if optimizer == "sgd" else replace(DENSE, expression=over.dense),
        *(family(ratio) for family in families for ratio in ratios),
        *(replace(at(ratio), family=None) for at in others for ratio in ratios),
        *(cser(blocks, ratio) for ratio in errors_apart if optimizer == "sgd"),
        *(
            sparse_loco(ratio, period, costs, per_leaf, over)
            for period in periods[:1]
            for ratio in ratios
        ),
        *(gathered(name, costs, per_leaf, over) for name in CODES),
        *(both_ways(name, costs, per_leaf, workers, over) for name in _BOTH_WAYS),
        *(power_sgd(rank, costs, matrices(params), over) for rank in RANKS),
        votes(costs, over),
        *(pattern for period in periods for pattern in local(period, over)),
        *of_neighbours(workers, over),
    ]
