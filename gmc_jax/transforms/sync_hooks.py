"""Calls of the hooks that states of an inner optimizer have for synchronisations."""

import jax

from gmc_jax.core import Tree, has_hook
from gmc_jax.utils.trees import find_hooks


def sync_weighted(pseudo_gradient: Tree, inner_state: Tree) -> Tree:
    """A worker's pseudo-gradient, weighted for the mean over workers.

    States that weight workers have a hook `sync_weighted(pseudo_gradient)` (see
    `with_hooks`). Without one the pseudo-gradient comes back unchanged.
    """
    for state in find_hooks(inner_state, "sync_weighted"):
        pseudo_gradient = state.sync_weighted(pseudo_gradient)
    return pseudo_gradient


def on_sync(inner_state: Tree, start: Tree, end: Tree) -> Tree:
    """The inner optimizer's state after a synchronisation has moved the parameters.

    States that depend on the parameters have a hook `on_sync(start, end)` (see
    `with_hooks`), which receives this worker's parameters before and after.
    """

    def has_on_sync(node: Tree) -> bool:
        return has_hook(node, "on_sync")

    def move(node: Tree) -> Tree:
        return node.on_sync(start, end) if has_on_sync(node) else node

    return jax.tree.map(move, inner_state, is_leaf=has_on_sync)
