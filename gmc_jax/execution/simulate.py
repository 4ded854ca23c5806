"""Runs all workers on one device."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax

from gmc_jax.core import Tree
from gmc_jax.execution._running import Metrics, checked_layout, compiled, summary_of
from gmc_jax.execution.layout import Train
from gmc_jax.execution.step import Step
from gmc_jax.utils import checks


def simulate(
    step: Step,
    state: Tree,
    batch: Tree,
    workers: int,
    *,
    axis_name: str = "workers",
    replicated: Callable[[Tree], Tree] | None = None,
    metrics: Metrics = "each",
) -> tuple[Train, Tree]:
    """Runs the step of one worker for many simulated workers on one device.

    The step is batched by `jax.vmap` over a named axis, over which its channels
    average. Leaves of the state that differ between workers (see `layout`) are kept
    with a leading axis of workers; the other leaves are kept once.

    Args:
      step: the step of one worker, `(state, batch) -> (state, metrics)`.
      state: one worker's state; it is copied. If it holds `jax.ShapeDtypeStruct`s, so
        does the state that is returned, for `train.lower`.
      batch: an example of the batches of all workers: every leaf has a leading axis of
        workers. Only shapes and dtypes are read.
      workers: the number of workers.
      axis_name: the named axis that the channels average over.
      replicated: selects the leaves that must be the same on all workers, such as the
        parameters: `lambda state: state[0]`.
      metrics: "each" for each worker's metrics, with a leading axis of workers; "mean"
        for their mean, as floats.

    Returns:
      `(train, state)`. `train` is a compiled function `(state, batch) -> (state,
      metrics)`, which donates the state. `state` is the state as it is kept between
      steps. `train.layout` is its layout, for `evaluate`, `resize` and `Checkpoints`.

    Raises:
      ValueError: if the batch has no leading axis of workers; if the step does not
        return metrics and a state of the types that it was given; if a leaf that
        `replicated` selects differs between workers. `train` raises it, before it runs,
        if its state does not fit `train.layout`.

    Example:
      >>> import gmc_jax, jax, jax.numpy as jnp, optax
      >>> tx = gmc_jax.gmc(0.1, gmc_jax.all_gather(gmc_jax.top_k(0.5)))
      >>> def step(state, batch):
      ...     params, opt_state = state
      ...     loss, grads = jax.value_and_grad(lambda w: jnp.sum((w - batch) ** 2))(
      ...         gmc_jax.query(opt_state, params)
      ...     )
      ...     updates, opt_state = tx.update(grads, opt_state, params)
      ...     return (optax.apply_updates(params, updates), opt_state), loss
      >>> params, batch = jnp.zeros(4), jnp.ones((8, 4))
      >>> train, state = gmc_jax.simulate(step, (params, tx.init(params)), batch, 8)
      >>> state, losses = train(state, batch)
      >>> losses.shape
      (8,)
    """
    summary = summary_of(metrics)
    checks.function(step=step)

    # One trace serves the layout and the run. JAX keeps traces by function, so this one
    # is new in each call: a step that reads what has changed meanwhile is traced anew.
    @partial(jax.jit, inline=True)
    def traced_once(state: Tree, batch: Tree) -> tuple[Tree, Tree]:
        return step(state, batch)

    layout = checked_layout(traced_once, state, batch, workers, axis_name, replicated)
    batched = jax.vmap(
        traced_once,
        in_axes=(layout.axes, 0),
        out_axes=(layout.axes, 0),
        axis_name=axis_name,
        axis_size=workers,
    )

    def run(state: Tree, batch: Tree) -> tuple[Tree, Tree]:
        state, metrics = batched(state, batch)
        return state, summary(metrics)

    leaves = jax.tree.leaves(state)
    of_shapes = any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
    laid_out = layout.kept if of_shapes else layout.lay_out(state)
    return Train(compiled(run, layout), layout), laid_out
