"""How much state a method keeps, in vectors of the size of the parameters."""

import jax

import gmc_jax
from gmc_jax.core import Tree
from gmc_jax.utils.trees import entries_in


def own_and_shared(
    state: Tree, layout: gmc_jax.Layout, params: Tree
) -> tuple[float, float]:
    """What a worker keeps of its own, and what all have alike, before any step."""
    leaves = zip(jax.tree.leaves(state), jax.tree.leaves(layout.differs), strict=True)
    own = sum(leaf.size for leaf, differs in leaves if differs)
    size = entries_in(params)
    return own / size, (entries_in(state) - own) / size
