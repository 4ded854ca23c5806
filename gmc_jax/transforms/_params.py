"""What transformations that move parameters have in common."""

import jax

from gmc_jax.core import Tree
from gmc_jax.utils.trees import upcast


def require_params(caller: str, params: Tree) -> Tree:
    """The parameters, or ValueError where there are none."""
    if params is None:
        raise ValueError(
            f"`{caller}` leads parameters somewhere, so it must be given them: "
            "`tx.update(grads, opt_state, params)`."
        )
    return params


def difference(start: Tree, end: Tree) -> Tree:
    """The updates that lead from one point to another; float32 for 16-bit trees."""
    return jax.tree.map(lambda z, x: z - x, end, upcast(start))
