"""What `simulate` and `distribute` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp

from gmc_jax.core import Tree
from gmc_jax.execution.layout import Layout, layout
from gmc_jax.execution.step import Step
from gmc_jax.utils import checks
from gmc_jax.utils.prng_keys import is_key
from gmc_jax.utils.trees import accumulator_dtype, mean_over_workers

Metrics: TypeAlias = Literal["each", "mean"]
"""Which metrics are returned: each worker's, on a leading axis, or their mean."""


def checked_layout(
    step: Step,
    state: Tree,
    batch: Tree,
    workers: int,
    axis_name: str,
    replicated: Callable[[Tree], Tree] | None,
) -> Layout:
    """Infers the layout, and checks that leaves `replicated` selects do not differ."""
    if replicated is not None:
        checks.function(replicated=replicated)
    state_layout = layout(step, state, batch, workers, axis_name=axis_name)
    if replicated is not None:
        state_layout.check_replicated(replicated)
    return state_layout


def summary_of(metrics: Metrics) -> Callable[[Tree], Tree]:
    """Returns the function that maps the metrics of all workers to those returned."""
    if metrics not in get_args(Metrics):
        raise ValueError(
            f"`metrics` must be one of {get_args(Metrics)}, got {metrics!r}; it says "
            "whether each worker's metrics are returned, or their mean."
        )

    def mean(path: tuple, leaf: jax.Array) -> jax.Array:
        if is_key(leaf):
            raise TypeError(
                "Metrics must be numbers for `metrics='mean'`, got random keys in "
                f"`metrics{jax.tree_util.keystr(path)}`. Leave them out of what the "
                "step returns, or pass `metrics='each'`."
            )
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return mean_over_workers(leaf, jnp.dtype(jnp.float32))
        return mean_over_workers(leaf, accumulator_dtype(leaf.dtype))

    if metrics == "each":
        return lambda tree: tree
    return lambda tree: jax.tree_util.tree_map_with_path(mean, tree)


def compiled(
    train: Callable[[Tree, Tree], tuple[Tree, Tree]],
    layout: Layout,
    shardings_out: tuple[Tree, Tree] | None = None,
) -> jax.stages.Wrapped:
    """Compiles a step that checks its arguments while it is traced."""

    def checked(state: Tree, batch: Tree) -> tuple[Tree, Tree]:
        layout.check(state, batch)
        return train(state, batch)

    return jax.jit(checked, donate_argnums=0, out_shardings=shardings_out)
