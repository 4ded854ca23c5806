"""Where the next gradient is taken, and where the model is judged."""

from __future__ import annotations

from gmc_jax.core import Tree
from gmc_jax.utils.jaxprs import QUERY_MARK, mark
from gmc_jax.utils.trees import find_hooks


def query(opt_state: Tree, params: Tree) -> Tree:
    """Where the next gradient is to be taken.

    Call it in the step of one worker, in place of the parameters:
    `jax.value_and_grad(loss_fn)(gmc_jax.query(opt_state, params), batch)`. States that
    move the point have a hook `query(params)` (see `with_hooks`); they are found inside
    any chain or wrapper of optax that keeps the structure of the parameters.
    Without one the parameters themselves come back, so the loop never knows the method.

    A step that never calls it trains by another method where a state moves the point:
    `simulate`, `distribute` and `layout` warn of that. That the gradient is taken at
    what it returns they cannot see. Call it and leave the result where that is meant.

    Args:
      opt_state: one worker's state of any optax transformation.
      params: that worker's parameters.

    Returns:
      The point, in the structure, shapes and dtypes of the parameters.
    """
    for state in find_hooks(opt_state, "query"):
        params = mark(state.query(params), QUERY_MARK)
    return params
