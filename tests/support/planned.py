"""The candidates of a plan for a thousand parameters, by name."""

import jax
import jax.numpy as jnp

from gmc_jax.core import Tree
from gmc_jax.costs.candidates import candidates
from gmc_jax.costs.compression_cost import CPU_2_CORES, CompressionCost

PARAMS = jax.ShapeDtypeStruct((1000,), jnp.float32)


def rows(
    workers=8,
    ratios=(0.1,),
    periods=(12,),
    costs=CPU_2_CORES,
    params: Tree = PARAMS,
):
    """The candidates by name."""
    patterns = candidates(params, workers, ratios, periods, costs)
    return {pattern.name: pattern for pattern in patterns}


ENTRY, BYTE = 0.5, 0.001
COSTS = {
    **{
        name: dict.fromkeys(by_ratio, CompressionCost(ENTRY, BYTE))
        for name, by_ratio in CPU_2_CORES.items()
    },
    "low_rank": {2: CompressionCost(2.0, 0.0), 4: CompressionCost(4.0, 0.0)},
}
