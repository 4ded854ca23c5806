"""The leaves of a tree as matrices, and products of these with thin factors."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gmc_jax.channels.exact import exact
from gmc_jax.channels.sharded.shards import shards_of
from gmc_jax.core import Tree
from gmc_jax.utils.trees import (
    accumulator_dtype,
    entries_in,
    size_in_bits,
    zeros_to_accumulate,
)
from gmc_jax.utils.vectors import unstack


class Group(NamedTuple):
    """The leaves of a tree that are matrices of one shape and dtype.

    Attributes:
      leaves: their indices among the leaves of the tree.
      rows: n.
      columns: m.
      dtype: what they are multiplied in, at least float32.
    """

    leaves: tuple[int, ...]
    rows: int
    columns: int
    dtype: jnp.dtype


def groups_of(tree: Tree, rank: int) -> list[Group]:
    """Groups the leaves that two factors of a rank describe in fewer numbers."""
    found: dict[tuple, list[int]] = {}
    for index, leaf in enumerate(jax.tree.leaves(tree)):
        shape = _matrix_shape(jnp.shape(leaf), rank)
        if shape is not None:
            dtype = accumulator_dtype(jnp.result_type(leaf))
            found.setdefault((*shape, dtype), []).append(index)
    return [Group(tuple(leaves), *kind) for kind, leaves in found.items()]


def _matrix_shape(shape: tuple[int, ...], rank: int) -> tuple[int, int] | None:
    """The n and m of a leaf as a matrix, or None if factors would not be smaller."""
    splits = [
        (math.prod(shape[:at]), math.prod(shape[at:])) for at in range(1, len(shape))
    ]
    if not splits:
        return None
    rows, columns = min(splits, key=sum)
    return (rows, columns) if rank * (rows + columns) < rows * columns else None


def first_factors(tree: Tree, rank: int, seed: int) -> list[jax.Array]:
    """Random right factors to begin with."""

    def draw(group: Group) -> jax.Array:
        keys = [jax.random.fold_in(jax.random.key(seed), leaf) for leaf in group.leaves]
        shape = group.columns, rank
        return jnp.stack([jax.random.normal(key, shape, group.dtype) for key in keys])

    return list(map(draw, groups_of(tree, rank)))


def joined(factors: Sequence[jax.Array]) -> jax.Array:
    """A factor of all matrices in one vector, as states keep it.

    The structure of a state must not depend on the shapes of the parameters: optax
    initialises states from a placeholder to find what mirrors the parameters.
    """
    if not factors:
        return jnp.zeros(0, jnp.float32)
    dtype = max((factor.dtype for factor in factors), key=lambda dtype: dtype.itemsize)
    return jnp.concatenate([factor.ravel().astype(dtype) for factor in factors])


def parted(vector: jax.Array, tree: Tree, rank: int, side: str) -> list[jax.Array]:
    """The factor that `joined` made a vector of.

    Args:
      vector: the vector.
      tree: the matrices are those of this tree.
      rank: of the factors.
      side: "rows" for a left factor, "columns" for a right one.
    """
    factors, start = [], 0
    for group in groups_of(tree, rank):
        shape = len(group.leaves), getattr(group, side), rank
        end = start + math.prod(shape)
        factors.append(vector[start:end].reshape(shape).astype(group.dtype))
        start = end
    return factors


class Matrices(NamedTuple):
    """The matrices of a tree, and its other leaves.

    A factor of all matrices is a list with an array for each group, [leaves, n, rank]
    (a left one) or [leaves, m, rank] (a right one).

    Attributes:
      stacks: for each group, arrays [some leaves, n, m] that together hold its leaves.
      rest: the tree without the matrices, None in the place of each.
      restore: `(stacks, rest) -> tree`.
    """

    stacks: list[list[jax.Array]]
    rest: Tree
    restore: Callable[[list[list[jax.Array]], Tree], Tree]

    def times(self, right: Sequence[jax.Array]) -> list[jax.Array]:
        """The left factors M R."""
        return self._product("gnm,gmr->gnr", right)

    def transposed_times(self, left: Sequence[jax.Array]) -> list[jax.Array]:
        """The right factors M^T L."""
        return self._product("gnm,gnr->gmr", left)

    def lost(self, left: Sequence[jax.Array], right: Sequence[jax.Array]) -> Tree:
        """The tree M - L R^T, zero in the other leaves."""
        products = self._decoded(left, right)
        stacks = jax.tree.map(jnp.subtract, self.stacks, products)
        return self.restore(stacks, zeros_to_accumulate(self.rest))

    def decoded(
        self, left: Sequence[jax.Array], right: Sequence[jax.Array], rest: Tree
    ) -> Tree:
        """The tree L R^T, with other leaves as they are given."""
        return self.restore(self._decoded(left, right), rest)

    def _product(self, how: str, factors: Sequence[jax.Array]) -> list[jax.Array]:
        def of_group(stacks: list[jax.Array], factor: jax.Array) -> jax.Array:
            parts = zip(stacks, _cut(factor, stacks), strict=True)
            return jnp.concatenate([_einsum(how, *part) for part in parts])

        return list(map(of_group, self.stacks, factors))

    def _decoded(
        self, left: Sequence[jax.Array], right: Sequence[jax.Array]
    ) -> list[list[jax.Array]]:
        return [
            [
                _einsum("gnr,gmr->gnm", *part)
                for part in zip(_cut(one, stacks), _cut(other, stacks), strict=True)
            ]
            for stacks, one, other in zip(self.stacks, left, right, strict=True)
        ]


def matrices_of(tree: Tree, rank: int, step: jax.Array) -> Matrices:
    """Takes the matrices out of a tree.

    Matrices alike are stacked, so that their products are compiled once. Where leaves
    are split over the devices of a worker, each is a stack by itself: XLA partitions
    its products as the leaf is split.

    Args:
      tree: of floats.
      rank: of the factors.
      step: for `unstack`.
    """
    leaves, treedef = jax.tree.flatten(tree)
    groups = groups_of(tree, rank)
    is_split = [any(spec) for spec in shards_of(tree).specs]

    def stacks_of(group: Group) -> list[jax.Array]:
        shape = group.rows, group.columns
        matrices = [
            jnp.reshape(leaves[leaf], shape).astype(group.dtype)
            for leaf in group.leaves
        ]
        if any(is_split[leaf] for leaf in group.leaves):
            return [matrix[None] for matrix in matrices]
        return [jnp.stack(matrices)]

    def restore(stacks: list[list[jax.Array]], rest: Tree) -> Tree:
        others = jax.tree.leaves(rest, is_leaf=lambda leaf: leaf is None)
        for group, parts in zip(groups, stacks, strict=True):
            for leaf, row in zip(group.leaves, _rows(parts, step), strict=True):
                others[leaf] = jnp.reshape(row, jnp.shape(leaves[leaf]))
        return treedef.unflatten(others)

    taken = {leaf for group in groups for leaf in group.leaves}
    rest = [None if index in taken else leaf for index, leaf in enumerate(leaves)]
    return Matrices(list(map(stacks_of, groups)), treedef.unflatten(rest), restore)


def mean_of_workers(tree: Tree, axis_name: str) -> Tree:
    """The exact mean over workers."""
    mean, _, _ = exact(axis_name=axis_name).average(tree, ())
    return mean


def orthonormal(factors: Sequence[jax.Array]) -> list[jax.Array]:
    """Orthonormal columns that span those of each factor, and more if they are fewer.

    Householder's reflections give orthonormal columns of any factor, zeros included. So
    a direction that once was empty is not lost for ever.
    """
    return [jnp.linalg.qr(factor)[0] for factor in factors]


def sizes_sent(tree: Tree, rank: int, sides: Sequence[str]) -> tuple[int, int]:
    """The bits and the entries of a call that sends the exact leaves and some factors.

    Args:
      tree: the tree.
      rank: of the factors.
      sides: the lengths of the factors that are sent, "rows" or "columns".
    """
    groups = groups_of(tree, rank)
    taken = {leaf for group in groups for leaf in group.leaves}
    rest = [x for at, x in enumerate(jax.tree.leaves(tree)) if at not in taken]
    bits = size_in_bits(jax.eval_shape(zeros_to_accumulate, rest))
    entries = entries_in(rest)
    for group in groups:
        length = sum(getattr(group, side) for side in sides)
        sent = rank * length * len(group.leaves)
        entries += sent
        bits += 8 * group.dtype.itemsize * sent
    return bits, entries


def _cut(factor: jax.Array, stacks: list[jax.Array]) -> list[jax.Array]:
    """The parts of a factor that belong to the stacks of its group."""
    if len(stacks) == 1:
        return [factor]
    return [factor[at : at + 1] for at in range(len(stacks))]


def _rows(parts: list[jax.Array], step: jax.Array) -> list[jax.Array]:
    if len(parts) == 1 and len(parts[0]) > 1:
        (stack,) = parts
        return unstack(stack.reshape(len(stack), -1), step)
    return [part[0] for part in parts]


def _einsum(how: str, one: jax.Array, other: jax.Array) -> jax.Array:
    # Accelerators may round operands to fewer bits. What rounding changes in `mean`
    # would not be in `lost`.
    return jnp.einsum(how, one, other, precision=lax.Precision.HIGHEST)
