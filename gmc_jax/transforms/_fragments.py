"""Fragments of a tree: which leaves synchronise together, and when."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from gmc_jax.core import Tree
from gmc_jax.utils import checks

Fragments: TypeAlias = int | Callable[[str], int] | None
"""How a tree is divided: see `streaming`."""


class Division(NamedTuple):
    """The leaves of a tree, divided into fragments.

    Attributes:
      numbers: the fragment of each leaf, from 0, in the order of the leaves.
      total: the number of fragments; 0 for a tree without leaves.
    """

    numbers: tuple[int, ...]
    total: int

    def flags(self, tree: Tree, fragment: int) -> Tree:
        """Whether each leaf belongs to a fragment."""
        flags = [number == fragment for number in self.numbers]
        return jax.tree.structure(tree).unflatten(flags)

    def part(self, tree: Tree, fragment: int) -> Tree:
        """The tree with everything masked but one fragment."""
        return jax.tree.map(
            lambda own, leaf: leaf if own else optax.MaskedNode(),
            self.flags(tree, fragment),
            tree,
        )

    def replace(self, tree: Tree, fragment: int, part: Tree) -> Tree:
        """The tree with one fragment replaced by a tree that `part` could return."""
        new = iter(jax.tree.leaves(part))
        return jax.tree.map(
            lambda own, leaf: next(new) if own else leaf,
            self.flags(tree, fragment),
            tree,
        )

    def due(self, step: jax.Array, period: int) -> jax.Array:
        """The fragment that is due at a step, plus 1; 0 for none, or before step 1."""
        ends = range(1, self.total + 1)
        places = [-(-end * period // self.total) % period for end in ends]
        is_due = (step % period == jnp.array(places, jnp.int32)) & (step >= 1)
        return jnp.sum(jnp.where(is_due, jnp.array(ends, jnp.int32), 0))


def divide(tree: Tree, fragments: Fragments, period: int) -> Division:
    """Divides a tree into fragments, of which at most one is due at a step.

    Raises:
      ValueError: if there are more fragments than layers, or than steps in a period, or
        a fragment is not a whole number.
    """
    places = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    if callable(fragments):
        names = [
            jax.tree_util.keystr(path, simple=True, separator="/") for path in places
        ]
        chosen = [_checked(fragments(name), name) for name in names]
    else:
        chosen = _layers(places)
        if fragments is not None:
            layers = len(set(chosen))
            if fragments > layers and chosen:
                raise ValueError(
                    f"`fragments` must be at most the number of layers, {layers}, got "
                    f"{fragments}. Pass a function from paths to numbers to divide "
                    "layers."
                )
            chosen = [layer % fragments for layer in chosen]
    order = {number: rank for rank, number in enumerate(sorted(set(chosen)))}
    if len(order) > period:
        raise ValueError(
            f"`period` must be at least the number of fragments, {len(order)}, got "
            f"{period}; one fragment at most synchronises at a step. Pass fewer "
            f"`fragments`, such as {period}."
        )
    return Division(tuple(order[number] for number in chosen), len(order))


def _checked(number: int, name: str) -> int:
    checks.nonnegative_int(**{f"fragments({name!r})": number})
    return int(number)


def _layers(places: list[tuple]) -> list[int]:
    """The layer of each leaf: the node in which it lies where the tree first branches.

    Leaves at the branching itself are one layer together.
    """
    depth = 0
    while all(len(path) > depth + 1 for path in places) and (
        len({path[depth] for path in places}) == 1
    ):
        depth += 1
    keys = [path[depth] if len(path) > depth + 1 else None for path in places]
    order = {key: rank for rank, key in enumerate(dict.fromkeys(keys))}
    return [order[key] for key in keys]
