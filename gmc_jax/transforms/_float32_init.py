"""Initial states for 16-bit parameters and float32 updates."""

import jax
import jax.numpy as jnp
import optax

from gmc_jax.core import Tree
from gmc_jax.transforms._conserved import is_conserved
from gmc_jax.utils.trees import upcast


def init_in_float32(tx: optax.GradientTransformation, params: Tree) -> Tree:
    """The state of a transformation whose updates are float32 for 16-bit parameters.

    Buffers start as for float32 parameters, so that they keep float32 updates. Channels
    average in the dtypes of the parameters and must start from these, as `Channel.init`
    demands. They are told apart by what states conserve: see `is_conserved`.
    """
    wide = upcast(params)
    state = tx.init(wide)
    if _dtypes(wide) == _dtypes(params):
        return state

    def pick(conserved: bool, leaf: jax.Array, of_wide: jax.Array) -> jax.Array:
        return leaf if conserved else of_wide

    return jax.tree.map(pick, is_conserved(state), tx.init(params), state)


def _dtypes(tree: Tree) -> list[jnp.dtype]:
    return [jnp.result_type(leaf) for leaf in jax.tree.leaves(tree)]
