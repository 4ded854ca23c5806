"""Which leaves of a state are conserved: residuals, anchors, states of channels."""

import jax

from gmc_jax.core import Tree, has_hook


def is_conserved(state: Tree) -> Tree:
    """A tree of bools: whether a leaf is part of what some state conserves.

    States say so with the hook `conserved` (see `with_hooks`). All other leaves belong
    to optimizers: buffers, counters, hyper-parameters.
    """
    leaves, treedef = jax.tree.flatten(state)
    places = _conserved_places(treedef.unflatten(range(len(leaves))))
    return treedef.unflatten(place in places for place in range(len(leaves)))


def _conserved_places(state: Tree) -> set[int]:
    """The conserved leaves of a state and of the states inside it."""

    def is_inside(node: Tree) -> bool:
        return node is not state and has_hook(node, "conserved")

    own = state.conserved() if has_hook(state, "conserved") else ()
    nodes = jax.tree.leaves(state, is_leaf=is_inside)
    return set(jax.tree.leaves(own)).union(
        *[_conserved_places(node) for node in nodes if is_inside(node)]
    )
