"""What `simulate` and `distribute` have in common."""

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
"""Whose metrics come back: each worker's, on a leading axis, or their mean."""


def checked_layout(
    step: Step,
    state: Tree,
    batch: Tree,
    workers: int,
    axis_name: str,
    replicated: Callable[[Tree], Tree] | None,
) -> Layout:
    if replicated is not None:
        checks.function(replicated=replicated)
    plan = layout(step, state, batch, workers, axis_name=axis_name)
    if replicated is not None:
        plan.check_replicated(replicated)
    return plan


def summary_of(metrics: Metrics) -> Callable[[Tree], Tree]:
    """What becomes of the metrics of all workers."""
    if metrics not in get_args(Metrics):
        raise ValueError(
            f"`metrics` says whose come back, one of {get_args(Metrics)}, but is "
            f"{metrics!r}."
        )

    def mean(path: tuple, leaf: jax.Array) -> jax.Array:
        if is_key(leaf):
            raise TypeError(
                "`metrics` is 'mean', but of random keys, such as "
                f"`metrics{jax.tree_util.keystr(path)}`, there is none. Leave them out "
                "of what the step returns, or pass `metrics='each'`."
            )
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return mean_over_workers(leaf, jnp.promote_types(leaf.dtype, jnp.float32))
        return mean_over_workers(leaf, accumulator_dtype(leaf.dtype))

    if metrics == "each":
        return lambda tree: tree
    return lambda tree: jax.tree_util.tree_map_with_path(mean, tree)


def compiled(
    train: Callable[[Tree, Tree], tuple[Tree, Tree]],
    plan: Layout,
    shardings_out: tuple[Tree, Tree] | None = None,
) -> jax.stages.Wrapped:
    def checked(state: Tree, batch: Tree) -> tuple[Tree, Tree]:
        plan.check(state, batch)
        return train(state, batch)

    return jax.jit(checked, donate_argnums=0, out_shardings=shardings_out)
