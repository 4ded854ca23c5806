"""The point of the next gradient, which a state may move away from the parameters."""

from __future__ import annotations

from gmc_jax.core import Tree
from gmc_jax.utils.jaxprs import QUERY_MARK, mark
from gmc_jax.utils.trees import find_hooks


def query(opt_state: Tree, params: Tree) -> Tree:
    """The point at which to take the next gradient.

    Call it in the step of one worker, in place of the parameters:
    `jax.value_and_grad(loss_fn)(gmc_jax.query(opt_state, params), batch)`. States that
    move the point have a hook `query(params)` (see `with_hooks`). They are found inside
    any chain or wrapper of optax that keeps the structure of the parameters. Without
    such a state the parameters come back, so the loop is the same for all methods.

    Where a state moves the point, a step that does not call `query` trains by another
    method: `simulate`, `distribute` and `layout` warn of that. They cannot see whether
    the gradient is taken at the point. To ignore the point on purpose, call `query` and
    drop the result.

    Args:
      opt_state: one worker's state of any optax transformation.
      params: that worker's parameters.

    Returns:
      The point, in the structure, shapes and dtypes of the parameters.
    """
    for state in find_hooks(opt_state, "query"):
        params = mark(state.query(params), QUERY_MARK)
    return params
