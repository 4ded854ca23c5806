"""Initial states for 16-bit parameters and float32 updates."""

import jax
import jax.numpy as jnp
import optax

from gmc_jax.core import Tree
from gmc_jax.transforms._conserved import is_conserved
from gmc_jax.utils.trees import upcast


def init_in_float32(tx: optax.GradientTransformation, params: Tree) -> Tree:
    """The state of a transformation whose updates are float32 for 16-bit parameters.

    Buffers start as for float32 parameters, so that they can hold float32 updates. What
    states conserve, the states of channels included, starts as for the parameters
    themselves: channels average in the parameters' dtypes, and `Channel.init` must get
    the dtypes that `average` will get.
    """
    wide = upcast(params)
    state = tx.init(wide)
    conserved = is_conserved(state)
    if _dtypes(wide) == _dtypes(params) or not any(jax.tree.leaves(conserved)):
        return state

    def pick(kept: bool, leaf: jax.Array, of_wide: jax.Array) -> jax.Array:
        return leaf if kept else of_wide

    return jax.tree.map(pick, conserved, tx.init(params), state)


def _dtypes(tree: Tree) -> list[jnp.dtype]:
    return [jnp.result_type(leaf) for leaf in jax.tree.leaves(tree)]
