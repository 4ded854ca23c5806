"""What the loop calls for methods that need full gradients: SVRG, Katyusha X."""

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
    """Whether an epoch starts; then the loop must take the full gradient.

    Args:
      opt_state: the state of a chain that holds one `epochs`.

    Returns:
      A bool: true at the very start, and after the last update of each epoch.

    Raises:
      ValueError: if the state holds no `EpochsState`, or several.
    """
    return _only(opt_state, EpochsState).done == 0


def svrg_snapshot(opt_state: Tree) -> Tree:
    """The point of the gradients that variance reduction compares with.

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

    The loop calls it, since only the loop has all samples. It may do so inside the
    axis: each worker averages over its own samples and then over workers, for example
    through `exact()`. Or outside it, on a state of `simulate` or `distribute`, with the
    mean gradient over all samples of all workers.

    Args:
      opt_state: the state of a chain that holds one `variance_reduced`.
      params: the parameters.
      gradient: the gradient of the mean loss over all samples of all workers, at these
        parameters.

    Returns:
      The state of the chain, with this snapshot and full gradient.

    Raises:
      TypeError: if a leaf of the gradient is not floating.
      ValueError: if the state holds no `VarianceReducedState`, or several; if the
        parameters or the gradient differ in structure, shapes or dtypes from those of
        the state, for example by an axis of workers.
    """
    _only(opt_state, VarianceReducedState)

    def replace(node: Tree) -> Tree:
        if not isinstance(node, VarianceReducedState):
            return node
        _check_same_form(node.snapshot, params, "params")
        wide = upcast_floating(gradient)
        _check_same_form(node.full_gradient, wide, "gradient")
        # Copies: the loop may donate the memory of both.
        snapshot, mean = jax.tree.map(jnp.array, (params, wide))
        return node._replace(snapshot=snapshot, full_gradient=mean)

    return jax.tree.map(
        replace, opt_state, is_leaf=lambda node: isinstance(node, VarianceReducedState)
    )


def _check_same_form(expected: Tree, tree: Tree, name: str) -> None:
    difference = first_difference(expected, tree, name)
    if difference is not None:
        raise ValueError(
            f"{difference}, as in `opt_state`. Pass one worker's parameters, and the "
            "mean gradient at them, without an axis of workers."
        )


def _only(opt_state: Tree, kind: type[Kind]) -> Kind:
    states = find(opt_state, kind)
    if len(states) != 1:
        raise ValueError(
            f"`opt_state` must hold one `{kind.__name__}`, got {len(states)}. Pass the "
            "state of `svrg`, of `katyusha_x`, or of a chain of the same parts."
        )
    return states[0]
