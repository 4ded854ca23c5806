"""States of a base that know where the parameters are, at meetings that move them."""

import jax

from gmc_jax.core import Tree
from gmc_jax.trees import find_method, has_method


def weighed(way: Tree, base: Tree) -> Tree:
    """A worker's way as the mean over workers is to have it.

    States that weigh workers are those whose class has a method `weighed(way)`.
    """
    for state in find_method(base, "weighed"):
        way = state.weighed(way)
    return way


def moved(base: Tree, start: Tree, end: Tree) -> Tree:
    """The base's state where a meeting moves this worker's parameters.

    States that want to know are those whose class has a method `moved(start, end)`.
    """

    def move(node: Tree) -> Tree:
        return node.moved(start, end) if has_method(node, "moved") else node

    return jax.tree.map(move, base, is_leaf=lambda node: has_method(node, "moved"))
