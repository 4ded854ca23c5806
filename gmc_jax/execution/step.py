"""One worker's step: its type, its traced program, and checks of batch and state."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from gmc_jax.core import Tree
from gmc_jax.utils.differences import first_difference
from gmc_jax.utils.jaxprs import Program

Step: TypeAlias = Callable[[Tree, Tree], tuple[Tree, Tree]]
"""The step of one worker: `(state, batch) -> (state, metrics)`."""

_OF_FLAX = (
    "The step changes a variable of Flax NNX, such as the count of an `nnx.Rngs`, that "
    "it closes over or that was made outside of the gradient. Keep it in the state: "
    "`graph, params, rest = nnx.split(model, nnx.Param, ...)`. Inside the loss, merge "
    "with copies: `nnx.merge(graph, params, rest, copy=True)`."
)


def trace(
    step: Step, state: Tree, batch: Tree, workers: int, axis_name: str
) -> Program:
    """Traces a step as a program from leaves of state and batch to the new state's.

    Args:
      step: the step of one worker.
      state: one worker's state, as `jax.ShapeDtypeStruct`.
      batch: the batches of all workers, on a leading axis.
      workers: the number of workers.
      axis_name: the named axis whose indices are the workers.

    Raises:
      ValueError: if the step does not return metrics and a state of the types that it
        was given.
      Exception: what the step raises; Flax's `TraceContextError` with a note.
    """

    def one_worker(state: Tree, batch: Tree) -> list[jax.Array]:
        new = _state_in(step(state, batch), state)
        return [jnp.asarray(leaf) for leaf in jax.tree.leaves(new)]

    def strong(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)

    def one(leaf: jax.Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(jnp.shape(leaf)[1:], jnp.result_type(leaf))

    traced = jax.make_jaxpr(one_worker, axis_env=[(axis_name, workers)])
    try:
        return traced(jax.tree.map(strong, state), jax.tree.map(one, batch))
    except Exception as error:
        if type(error).__name__ == "TraceContextError":
            error.add_note(_OF_FLAX)
        raise


def check_batch(batch: Tree, workers: int) -> None:
    """Raises ValueError unless every leaf has a leading axis of workers."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        shape = jnp.shape(leaf)
        if shape[:1] != (workers,):
            raise ValueError(
                f"`batch` must have a leading axis of {workers} workers on every leaf, "
                f"got shape {shape} for `batch{jax.tree_util.keystr(path)}`. Reshape "
                f"[{workers} * n, ...] to [{workers}, n, ...], or change the number of "
                "workers (under `distribute`: the size of the mesh's axis)."
            )


def _state_in(returned: Tree, before: Tree) -> Tree:
    """Returns the new state that a step returned; raises ValueError if it has none."""
    pair = type(returned) is tuple and len(returned) == 2
    difference = first_difference(before, returned[0], "state") if pair else None
    if pair and difference is None:
        return returned[0]
    if jax.tree.structure(returned) == jax.tree.structure(before):
        got = "the state alone"
    elif pair:
        raise ValueError(
            "`step` must return a state of the structure, shapes and dtypes that it "
            f"was given: {difference}. Cast it in the step, or start with a state of "
            "that type."
        )
    elif returned is None:
        got = "nothing"
    elif type(returned) is tuple:
        got = f"a tuple of {len(returned)}"
    else:
        got = f"a `{type(returned).__name__}`"
    raise ValueError(
        f"`step` must return a tuple of two, the new state and metrics, got {got}. End "
        "it with `return state, metrics`; without metrics, with `return state, {}`."
    )
