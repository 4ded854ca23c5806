"""States of a base that know where the parameters are, at meetings that move them."""

import jax

from gmc_jax.core import Tree, has_hook
from gmc_jax.utils.trees import find_hooks


def sync_weighted(way: Tree, base: Tree) -> Tree:
    """A worker's way as the mean over workers is to have it.

    States that weigh workers have a hook `sync_weighted(way)` (see `with_hooks`).
    """
    for state in find_hooks(base, "sync_weighted"):
        way = state.sync_weighted(way)
    return way


def on_sync(base: Tree, start: Tree, end: Tree) -> Tree:
    """The base's state where a meeting moves this worker's parameters.

    States that want to know have a hook `on_sync(start, end)` (see `with_hooks`).
    """

    def move(node: Tree) -> Tree:
        return node.on_sync(start, end) if has_hook(node, "on_sync") else node

    return jax.tree.map(move, base, is_leaf=lambda node: has_hook(node, "on_sync"))
