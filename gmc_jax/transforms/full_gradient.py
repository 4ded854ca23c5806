"""What a loop does for methods that want full gradients at times."""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp

from gmc_jax.core import Tree
from gmc_jax.transforms.epochs import EpochsState
from gmc_jax.transforms.variance_reduced import VarianceReducedState
from gmc_jax.utils.differences import first_difference
from gmc_jax.utils.trees import find, upcast_floating

Kind = TypeVar("Kind")


def full_gradient_due(opt_state: Tree) -> jax.Array:
    """Whether an epoch starts, so that the loop is to take the full gradient.

    Args:
      opt_state: the state of a chain that holds one `epochs`.

    Returns:
      A bool: at the very start, and after the last update of each epoch.

    Raises:
      ValueError: if the state holds no `EpochsState`, or several.
    """
    return _only(opt_state, EpochsState).done == 0


def svrg_snapshot(opt_state: Tree) -> Tree:
    """Where the gradients to compare with are to be taken.

    Args:
      opt_state: the state of a chain that holds one `variance_reduced`.

    Returns:
      The snapshot, in the structure, shapes and dtypes of the parameters.

    Raises:
      ValueError: if the state holds no `VarianceReducedState`, or several.
    """
    return _only(opt_state, VarianceReducedState).snapshot


def set_full_gradient(opt_state: Tree, params: Tree, gradient: Tree) -> Tree:
    """Starts an epoch: the parameters become the snapshot.

    The hook for the loop, which alone knows all samples. Inside the axis each worker
    averages over its own and then over workers (say, through `exact()`); outside, on
    the state as it is kept, it is the mean over all samples.

    Args:
      opt_state: the state of a chain that holds one `variance_reduced`.
      params: the parameters.
      gradient: of the mean loss over all samples of all workers, at these parameters.

    Returns:
      The state of the chain, with both in it.

    Raises:
      TypeError: if a leaf of the gradient is not floating.
      ValueError: if the state holds no `VarianceReducedState`, or several; if the
        parameters are not those that it is of, or the gradient is not one of them, as
        where it has an axis of workers.
    """
    _only(opt_state, VarianceReducedState)

    def replace(node: Tree) -> Tree:
        if not isinstance(node, VarianceReducedState):
            return node
        _check_alike(node.snapshot, params, "params")
        wide = upcast_floating(gradient)
        _check_alike(node.full_gradient, wide, "gradient")
        # Copies: the loop may donate the memory of both.
        own, mean = jax.tree.map(jnp.array, (params, wide))
        return node._replace(snapshot=own, full_gradient=mean)

    return jax.tree.map(
        replace, opt_state, is_leaf=lambda node: isinstance(node, VarianceReducedState)
    )


def _check_alike(expected: Tree, given: Tree, name: str) -> None:
    difference = first_difference(expected, given, name)
    if difference is not None:
        raise ValueError(
            f"{difference}, as `opt_state` has it. Give one worker's parameters, and "
            "the mean gradient at them, without an axis of workers."
        )


def _only(opt_state: Tree, kind: type[Kind]) -> Kind:
    states = find(opt_state, kind)
    if len(states) != 1:
        raise ValueError(
            f"`opt_state` must hold one `{kind.__name__}`, as that of `svrg` and "
            f"`katyusha_x` does, but holds {len(states)}."
        )
    return states[0]
