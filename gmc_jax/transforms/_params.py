"""What transformations need that move the parameters to a point."""

import jax

from gmc_jax.core import Tree
from gmc_jax.utils.trees import upcast


def require_params(caller: str, params: Tree) -> Tree:
    """The parameters; ValueError where they are None."""
    if params is None:
        raise ValueError(
            f"`{caller}` computes updates from the parameters, so `params` must be "
            "given, got None. Call `tx.update(grads, opt_state, params)`."
        )
    return params


def difference(start: Tree, end: Tree) -> Tree:
    """The updates that move `start` to `end`; float32 for 16-bit trees."""
    return jax.tree.map(lambda z, x: z - x, end, upcast(start))
