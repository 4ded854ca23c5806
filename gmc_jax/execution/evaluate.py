"""The parameters at which a model is evaluated."""

from __future__ import annotations

from gmc_jax.core import Tree
from gmc_jax.execution.layout import Layout, check_layout
from gmc_jax.utils.trees import find_hooks


def evaluate(opt_state: Tree, params: Tree, layout: Layout) -> Tree:
    """Returns the parameters at which the model is evaluated.

    Call it outside the named axis. Some methods evaluate the model at another point
    than the parameters. Their states have a hook `evaluate(params)` (see `with_hooks`).

    Args:
      opt_state: the optimizer's state as it is kept between steps: leaves that differ
        between workers have a leading axis of workers. Its nodes must be of the classes
        that the method made.
      params: the parameters as they are kept.
      layout: the layout of the whole state that holds both, or of a part that does.

    Returns:
      The parameters of one model: the mean of leaves that differ between workers, moved
      to the method's point of evaluation.

    Raises:
      ValueError: if `layout` holds no trees like these, or several of which not the
        same leaves differ between workers (then select the part by `Layout.of`). Also
        if the step updates a state with this hook that the state of `layout` does not
        hold, since `nnx.split`, for example, has taken it apart.
    """
    params = average_workers(params, layout)
    if not find_hooks(opt_state, "evaluate"):
        layout.check_holds("evaluate", lambda cls: "evaluate" in cls.hooks)
        return params
    for state in find_hooks(average_workers(opt_state, layout), "evaluate"):
        params = state.evaluate(params)
    return params


def average_workers(tree: Tree, layout: Layout) -> Tree:
    """Averages the leaves that differ between workers, such as batch statistics.

    Call it outside the named axis.

    Args:
      tree: a part of the state as it is kept between steps.
      layout: the layout of the whole state, or of a part that holds the tree.

    Returns:
      The tree as one worker has it. Leaves that differ are averaged over their leading
      axis in at least float32; means of integers are rounded. Random keys have no mean:
      the first worker's are returned. The other leaves are unchanged.

    Raises:
      ValueError: as `evaluate`.
    """
    check_layout(layout)
    return layout.average(tree)
