"""The size of a method's state, relative to the parameters."""

import jax

import gmc_jax
from gmc_jax.core import Tree
from gmc_jax.utils.trees import entries_in


def own_and_shared(
    state: Tree, layout: gmc_jax.Layout, params: Tree
) -> tuple[float, float]:
    """Measures the state that differs between workers, and the state that does not.

    Args:
      state: before the first step, of a single worker.
      layout: of the state.
      params: in whose size both results are measured.

    Returns:
      The size of one worker's own state, and of the state that all workers share.
    """
    leaves = zip(jax.tree.leaves(state), jax.tree.leaves(layout.differs), strict=True)
    own = sum(leaf.size for leaf, differs in leaves if differs)
    size = entries_in(params)
    return own / size, (entries_in(state) - own) / size
