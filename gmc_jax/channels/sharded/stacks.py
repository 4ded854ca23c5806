"""The vectors of a tree on one device, those that are alike stacked."""

import math
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from gmc_jax.channels.sharded.context import partition
from gmc_jax.channels.sharded.shards import Shards
from gmc_jax.core import Tree
from gmc_jax.utils.vectors import to_vectors, unstack

Vectors: TypeAlias = dict[int, jax.Array]
"""Vectors by the index of their leaf, as `to_vectors` makes them.

Vectors that are alike may be stacked, under the index of the first of them.
"""


def stacked_vectors(
    shards: Shards, tree: Tree, per_leaf: bool, step: jax.Array
) -> tuple[Vectors, Callable[[Vectors], Tree]]:
    """Flattens a tree as `to_vectors` does, and stacks the vectors that are alike.

    Returns:
      The vectors and stacks. And a function that restores the tree from them.
    """
    vectors, restore = to_vectors(tree, per_leaf, step)
    groups = alike(shards, tree, per_leaf)
    stacks = {
        group[0]: _stack([vectors.pop(leaf) for leaf in group])
        for group in groups
        if len(group) > 1
    }

    def restored(vectors: Vectors) -> Tree:
        single = dict(vectors)
        for group in groups:
            if len(group) > 1:
                rows = unstack(vectors[group[0]], step)
                single.update(zip(group, rows, strict=True))
        return restore(single)

    return vectors | stacks, restored


def _stack(rows: list[jax.Array]) -> jax.Array:
    """Stacks vectors of one size.

    On CPUs XLA would transpose a `jnp.stack` of simulated workers, with a copy of all
    of it. On other devices it would write joined vectors before it reads the stack.
    """

    def joined(rows: list[jax.Array]) -> jax.Array:
        return jnp.concatenate(rows).reshape(len(rows), -1)

    return lax.platform_dependent(rows, cpu=joined, default=jnp.stack)


def alike(shards: Shards, tree: Tree, per_leaf: bool) -> list[list[int]]:
    """Groups the vectors that are not split by shape and dtype, in order.

    JAX's generators other than threefry draw differently when they are batched. With
    them each vector is a group.
    """
    if not per_leaf:
        return [[0]]
    batches_alike = jax.random.key_impl(jax.random.key(0)) == "threefry2x32"
    split = split_vectors(shards, per_leaf)
    groups: dict[tuple, list[int]] = {}
    for leaf, array in enumerate(jax.tree.leaves(tree)):
        shape, dtype = jnp.shape(array), jnp.result_type(array)
        if math.prod(shape) and leaf not in split:
            kind = (shape, dtype) if batches_alike else (leaf,)
            groups.setdefault(kind, []).append(leaf)
    return list(groups.values())


def split_leaf(shards: Shards) -> str | None:
    """The first leaf that is split over devices, in words for errors."""
    split = split_vectors(shards, True)
    if not split:
        return None
    (place, *_) = split
    return (
        f"a leaf of shape {shards.shapes[place]} is split inside a worker by "
        f"{partition(shards.specs[place])}"
    )


def split_vectors(shards: Shards, per_leaf: bool) -> list[int]:
    """The vectors that are split over devices."""
    leaves = [leaf for leaf, spec in enumerate(shards.specs) if any(spec)]
    return leaves if per_leaf else [0] if leaves else []
