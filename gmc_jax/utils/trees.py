"""Helpers for trees: precision, means, and finding states."""

import math
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import optax

from gmc_jax.core import Tree, has_hook
from gmc_jax.utils import checks

Kind = TypeVar("Kind")


def accumulator_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """Returns the dtype to accumulate in: at least float32 for floats, else its own."""
    if jnp.issubdtype(dtype, jnp.floating) and jnp.dtype(dtype).itemsize < 4:
        return jnp.dtype(jnp.float32)
    return jnp.dtype(dtype)


def upcast(tree: Tree) -> Tree:
    """Casts every leaf to the dtype that it is accumulated in."""
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf, accumulator_dtype(jnp.result_type(leaf))), tree
    )


def upcast_floating(tree: Tree) -> Tree:
    """Casts a tree as `upcast` does, and checks that every leaf is floating.

    Raises:
      TypeError: if a leaf is not floating.
    """
    checks.floating(tree)
    return upcast(tree)


def times(factor: jax.typing.ArrayLike, leaf: jax.Array) -> jax.Array:
    """Multiplies a leaf by a number, in the dtype of the leaf."""
    return jnp.asarray(factor, leaf.dtype) * leaf


def downcast(tree: Tree, like: Tree) -> Tree:
    """Casts floats to the dtypes of another tree, and keeps finite numbers finite."""

    def cast(leaf: jax.Array, other: jax.Array) -> jax.Array:
        dtype = jnp.result_type(other)
        if jnp.result_type(leaf) == dtype or not (
            is_floating(leaf) and is_floating(other)
        ):
            return leaf
        if jnp.finfo(dtype).bits < jnp.finfo(leaf.dtype).bits:
            leaf = _clip_finite(leaf, leaf, dtype)
        return leaf.astype(dtype)

    return jax.tree.map(cast, tree, like)


def _clip_finite(given: jax.Array, leaf: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Clips a leaf to the range of a dtype, except where `given` is infinite."""
    limits = jnp.finfo(dtype)
    clipped = jnp.clip(leaf, float(limits.min), float(limits.max))
    return jnp.where(jnp.isinf(given), given, clipped)


def zeros_to_accumulate(tree: Tree) -> Tree:
    """Returns zeros in the shapes of a tree and the dtypes to accumulate it in.

    The zeros are sharded as the leaves are.

    Raises:
      TypeError: if a leaf is not floating.
    """
    checks.floating(tree)
    return jax.tree.map(
        lambda leaf: jnp.zeros_like(leaf, accumulator_dtype(jnp.result_type(leaf))),
        tree,
    )


def shares(count: int) -> tuple[float, float]:
    """Returns two factors for a mean whose sum does not overflow.

    Multiply each number by the first factor, the share. Add the products, and divide
    their sum by the second factor, the divisor (see `mean_of`). The share is a power of
    two, and the divisor is the count times the share. So the mean has the same bits as
    the sum divided by the count. Subnormal products are the exception: XLA may flush
    them to 0.

    Args:
      count: how many numbers are averaged.

    Returns:
      The share, at most 1 / count, and the divisor, `count * share`.
    """
    share = 0.5 ** (count - 1).bit_length()
    return share, count * share


def mean_of(total: jax.Array, divisor: float) -> jax.Array:
    """Divides a sum of shares; the mean is finite where the sum is (see `shares`)."""
    mean = total / divisor
    if divisor == 1 or not is_floating(total):
        return mean
    # If all numbers are close to the largest float, the rounded sum can exceed it.
    return _clip_finite(total, mean, mean.dtype)


def mean_over_workers(leaf: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Averages along the leading axis in `dtype`, which is floating and not narrower.

    The mean is finite where the leaf is.
    """
    share, divisor = shares(leaf.shape[0])
    return mean_of(jnp.sum(leaf.astype(dtype) * share, axis=0), divisor)


def integer_mean_over_workers(leaf: jax.Array) -> jax.Array:
    """Averages integers along the leading axis, and rounds the mean."""
    dtype = leaf.dtype if leaf.dtype.itemsize >= 4 else jnp.dtype(jnp.int32)
    # Large integers have too many digits for float32; their remainders do not.
    quotients, remainders = jnp.divmod(leaf.astype(dtype), dtype.type(len(leaf)))
    rest = jnp.round(jnp.mean(remainders.astype(jnp.float32), axis=0)).astype(dtype)
    return (jnp.sum(quotients, axis=0, dtype=dtype) + rest).astype(leaf.dtype)


def scale_floats(tree: Tree, factor: float) -> Tree:
    """Multiplies the floating leaves of a tree by a power of two."""
    return jax.tree.map(lambda leaf: leaf * factor if is_floating(leaf) else leaf, tree)


def is_floating(leaf: jax.typing.ArrayLike) -> bool:
    """Whether a leaf has a real floating dtype."""
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.floating))


def size_in_bits(tree: Tree) -> int:
    """Returns the size of all arrays of a tree, in bits."""
    return sum(
        8 * leaf.dtype.itemsize * math.prod(leaf.shape)
        for leaf in jax.tree.leaves(tree)
    )


def entries_in(tree: Tree) -> int:
    """Counts the entries of all leaves of a tree."""
    return sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(tree))


def find(tree: Tree, kind: type[Kind]) -> list[Kind]:
    """Finds all nodes of a type in a tree of states, in order, the outermost only."""
    nodes = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, kind))
    return [node for node in nodes if isinstance(node, kind)]


def map_unmasked(function: Callable, tree: Tree, *others: Tree) -> Tree:
    """Maps the leaves of a tree that `optax.masked` or `partition` did not mask.

    The trees in `others` have nothing masked. Masked leaves stay unchanged.
    """

    def on(leaf: Tree, *rest: Tree) -> Tree:
        return leaf if _is_masked(leaf) else function(leaf, *rest)

    return jax.tree.map(on, tree, *others, is_leaf=_is_masked)


def update_unmasked(function: Callable, whole: Tree, *others: Tree) -> Tree:
    """Maps a whole tree with others of which `optax.masked` or `partition` masks parts.

    Where the others are masked, a leaf or a whole branch, the tree stays unchanged.

    Raises:
      ValueError: if one of the others is not a part of the tree.
    """

    def unfold(node: Tree, branch: Tree) -> Tree:
        return jax.tree.map(lambda _: node, branch) if _is_masked(node) else node

    def on(leaf: Tree, *rest: Tree) -> Tree:
        return leaf if _is_masked(rest[0]) else function(leaf, *rest)

    unfolded = [jax.tree.map(unfold, o, whole, is_leaf=_is_masked) for o in others]
    return jax.tree.map(on, whole, *unfolded)


def _is_masked(node: Tree) -> bool:
    return isinstance(node, optax.MaskedNode)


def find_hooks(tree: Tree, name: str) -> list:
    """Finds all states with a hook of this name, in order, the outermost only."""
    nodes = jax.tree.leaves(tree, is_leaf=lambda node: has_hook(node, name))
    return [node for node in nodes if has_hook(node, name)]


def class_names(tree: Tree) -> set[str]:
    """Returns the names of the classes of all nodes and leaves of a tree."""
    names = set()

    def visit(node: Tree) -> bool:
        names.add(type(node).__name__)
        return False

    jax.tree.leaves(tree, is_leaf=visit)
    return names
