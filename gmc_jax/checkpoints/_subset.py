"""A part of a state: which leaves it has, and what is around them."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gmc_jax.core import Tree
from gmc_jax.execution.layout import Layout


def chosen(only: Callable[[Tree], Tree], layout: Layout) -> list[int]:
    """The places of the leaves that are selected from a state.

    Raises:
      ValueError: if there are none, or something else is made of the state.
    """
    kept = layout.kept  # Shapes: no two are the same object, nor can be computed with.
    places = {id(leaf): place for place, leaf in enumerate(jax.tree.leaves(kept))}
    try:
        found = jax.tree.leaves(only(kept))
        wrong = "it selects none" if not found else ""
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        found, wrong = [], f"{type(error).__name__}: {error}"
    for leaf in found:
        if id(leaf) not in places:
            wrong = f"it makes another {type(leaf).__name__} of it"
    if wrong:
        raise ValueError(
            "`only` must select leaves of the state and return them as they are, but "
            f"here {wrong}. Pass, say, `only=lambda state: state[0]`."
        )
    return sorted({places[id(leaf)] for leaf in found})


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
