"""Selects leaves of a state, and replaces them."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gmc_jax.core import Tree
from gmc_jax.execution.layout import Layout


def selected_places(only: Callable[[Tree], Tree], layout: Layout) -> list[int]:
    """Returns the places of the leaves that `only` selects from a state.

    Raises:
      ValueError: if it selects none, or returns anything but leaves of the state.
    """
    # Each shape is an object of its own, and `only` cannot compute with it.
    kept = layout.kept
    places = {id(leaf): place for place, leaf in enumerate(jax.tree.leaves(kept))}
    try:
        selected = jax.tree.leaves(only(kept))
        wrong = "it selects none" if not selected else ""
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        selected, wrong = [], f"it raises {type(error).__name__}: {error}"
    for leaf in selected:
        if id(leaf) not in places:
            wrong = f"it returns a new {type(leaf).__name__}"
    if wrong:
        raise ValueError(
            "`only` must select leaves of the state and return them unchanged, but "
            f"{wrong}. Pass, for example, `only=lambda state: state[0]`."
        )
    return sorted({places[id(leaf)] for leaf in selected})


def repeat_workers(state: Tree, layout: Layout, workers: int) -> Tree:
    """Gives a state on the host another number of workers, by repeating the old ones.

    The new worker j is the old worker j modulo their number.
    """
    old = np.arange(workers) % layout.workers
    return jax.tree.map(
        lambda leaf, differs: leaf[old] if differs else leaf, state, layout.differs
    )


def replace_leaves(like: Tree, places: Sequence[int], leaves: Sequence[Tree]) -> Tree:
    """Returns a state with other leaves in some places, and copies of the rest.

    Copies, since training donates the state that it is given.
    """
    new = dict(zip(places, leaves, strict=True))
    own, treedef = jax.tree.flatten(like)
    return treedef.unflatten(
        new[place] if place in new else _copy(leaf) for place, leaf in enumerate(own)
    )


def _copy(leaf: Tree) -> Tree:
    return jnp.copy(leaf) if isinstance(leaf, jax.Array) else leaf
