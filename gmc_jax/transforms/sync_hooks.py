"""States of a base that know where the parameters are, at meetings that move them."""

import jax

from gmc_jax.core import Tree, has_hook
from gmc_jax.utils.trees import find_hooks


def weighed(way: Tree, base: Tree) -> Tree:
    """A worker's way as the mean over workers is to have it.

    States that weigh workers have a hook `weighed(way)` (see `with_hooks`).
    """
    for state in find_hooks(base, "weighed"):
        way = state.weighed(way)
    return way


def moved(base: Tree, start: Tree, end: Tree) -> Tree:
    """The base's state where a meeting moves this worker's parameters.

    States that want to know have a hook `moved(start, end)` (see `with_hooks`).
    """

    def move(node: Tree) -> Tree:
        return node.moved(start, end) if has_hook(node, "moved") else node

    return jax.tree.map(move, base, is_leaf=lambda node: has_hook(node, "moved"))
