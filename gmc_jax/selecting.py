"""A part of a state: which leaves it has, and what is around them."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gmc_jax.core import Tree
from gmc_jax.layouts import Layout


def chosen(only: Callable[[Tree], Tree], like: Tree) -> list[int]:
    """The places of the leaves that are selected."""
    treedef = jax.tree.structure(like)
    places = range(treedef.num_leaves)
    found = jax.tree.leaves(only(treedef.unflatten(places)))
    if not found or not all(type(place) is int and place in places for place in found):
        said = f"makes {found[0]!r} of one" if found else "selects nothing"
        raise ValueError(
            "`only` must select leaves of the state and return them as they are, but "
            f"{said}. Pass, say, `only=lambda state: state[0]`."
        )
    return sorted(set(found))


def taking_turns(state: Tree, layout: Layout, workers: int) -> Tree:
    """A state on the host as so many workers would have it, one after another."""
    turns = np.arange(workers) % layout.workers
    return jax.tree.map(
        lambda leaf, differs: leaf[turns] if differs else leaf, state, layout.differs
    )


def replaced(like: Tree, places: Sequence[int], leaves: Sequence[Tree]) -> Tree:
    """A state with other leaves in some places, and copies of its own in the others.

    Copies, as training donates the state that it is given.
    """
    new = dict(zip(places, leaves, strict=True))
    own, treedef = jax.tree.flatten(like)
    return treedef.unflatten(
        new[place] if place in new else _copy(leaf) for place, leaf in enumerate(own)
    )


def _copy(leaf: Tree) -> Tree:
    return jnp.copy(leaf) if isinstance(leaf, jax.Array) else leaf
