"""What public code did once, and the same problems for the library.

`tests/support/data` has the recordings, and beside them how they were made.
"""

import functools
import pathlib
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gmc_jax.core import Tree
from tests.support import harness, problems

Shapes: TypeAlias = dict[str, Any]
"""Shapes of parameters, in dictionaries whose keys are in order."""

Gradient: TypeAlias = Callable[[Tree, Tree], Tree]
"""From parameters and a worker's batch of a step to gradients."""


@functools.cache
def recordings(name: str) -> dict[str, np.ndarray]:
    """The arrays of a file, all numbers in float64."""
    file = pathlib.Path(__file__).parent / "data" / f"{name}_trajectories.npz"
    with np.load(file) as arrays:
        return {
            what: array if array.dtype.kind == "U" else array.astype(np.float64)
            for what, array in arrays.items()
        }


def split(vectors: np.ndarray, shapes: Shapes) -> Tree:
    """The first entries of vectors [..., d] as parameters."""
    leaves, treedef = jax.tree.flatten(shapes, is_leaf=lambda x: isinstance(x, tuple))
    ends = np.cumsum([np.prod(shape) for shape in leaves])
    parts = zip(np.split(vectors, ends, axis=-1), leaves, strict=False)
    return treedef.unflatten(
        [part.reshape(*part.shape[:-1], *shape) for part, shape in parts]
    )


def trained(
    tx: optax.GradientTransformation,
    params: Tree,
    batches: Tree,
    gradient: Gradient,
    begin: Callable[[Tree], Tree] = lambda state: state,
) -> tuple[np.ndarray, Tree]:
    """Trains in float64, on batches whose leading axes are steps and workers.

    `begin` may change the state that `tx` begins with. Returns the weights,
    [steps + 1, d] ([steps + 1, workers, d] where they differ between workers), and the
    stacked states.
    """

    def step(state, batch):
        params, opt_state = state
        grads = gradient(params, batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), {}

    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, params)
        start = params, begin(tx.init(params))
        (weights, states), _ = harness.history(step, start, batches)
    extra = np.ndim(jax.tree.leaves(weights)[0]) - np.ndim(jax.tree.leaves(params)[0])
    return problems.flat(weights, leading=extra), states


def trained_on_quadratics(
    tx: optax.GradientTransformation,
    name: str,
    shapes: Shapes,
    begin: Callable[[Tree], Tree] = lambda state: state,
    order: np.ndarray | slice = slice(None),
) -> tuple[np.ndarray, Tree]:
    """`trained` on the quadratics of a recording, perhaps in another order of entries.

    Arrays are d long, [..., d], and so is an order that is an array.
    """
    data = recordings(name)
    batches = tuple(
        split(np.broadcast_to(data[what], data["noise"].shape)[..., order], shapes)
        for what in ("curvatures", "targets", "noise")
    )

    def gradient(params, batch):
        return jax.tree.map(lambda w, h, b, n: h * (w - b) + n, params, *batch)

    start = split(data["start"][order], shapes)
    return trained(tx, start, batches, gradient, begin)
