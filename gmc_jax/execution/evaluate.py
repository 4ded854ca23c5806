"""Where the model is judged."""

from __future__ import annotations

from gmc_jax.core import Tree
from gmc_jax.execution.layout import Layout, check_layout
from gmc_jax.utils.trees import find_hooks


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
