"""Where the next gradient is taken, and where the model is judged."""

from __future__ import annotations

from gmc_jax.core import Tree
from gmc_jax.layouts import Layout, check_layout
from gmc_jax.programs import QUERIED, mark
from gmc_jax.trees import find_hooks


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
        params = mark(state.query(params), QUERIED)
    return params


def evaluate(opt_state: Tree, params: Tree, layout: Layout) -> Tree:
    """Where the model is to be judged, outside the axis.

    States that move the point have a hook `evaluate(params)` (see `with_hooks`).

    Args:
      opt_state: the state as it is kept between steps, its differing leaves with a
        leading axis of workers; of the classes that the method made.
      params: the parameters as they are kept.
      layout: of the whole state that both are parts of, or of a part that holds them.

    Returns:
      One worker's worth of parameters: where they differ between workers their mean,
      moved to where the method wants it judged.

    Raises:
      ValueError: if `layout` does not hold trees like these, or holds several that
        differ in different leaves (`Layout.of` then picks the part); if the step has
        a state to be asked that is taken apart in the state of `layout`, as by
        `nnx.split`.
    """
    params = average_workers(params, layout)
    if not find_hooks(opt_state, "evaluate"):
        layout.check_whole("evaluate", lambda kind: "evaluate" in kind.hooks)
        return params
    for state in find_hooks(average_workers(opt_state, layout), "evaluate"):
        params = state.evaluate(params)
    return params


def average_workers(tree: Tree, layout: Layout) -> Tree:
    """Averages what differs between workers, say batch statistics, outside the axis.

    Args:
      tree: a part of the state as it is kept between steps.
      layout: of the whole state, or of a part that holds the tree.

    Returns:
      One worker's worth of the tree: leaves that differ are averaged over their leading
      axis in at least float32, integers rounded. Random keys, which have no mean, are
      those of the first worker. The others are as they were.

    Raises:
      ValueError: as `evaluate`.
    """
    check_layout(layout)
    return layout.average(tree)
