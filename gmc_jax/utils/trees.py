"""Trees and vectors: flattening, precision, and finding states inside states."""

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
    """The dtype to remember and to sum in: float32 for 16-bit floats, else the same."""
    if jnp.issubdtype(dtype, jnp.floating) and jnp.dtype(dtype).itemsize < 4:
        return jnp.dtype(jnp.float32)
    return jnp.dtype(dtype)


def upcast(tree: Tree) -> Tree:
    """Casts every leaf to the dtype that it is accumulated in."""
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf, accumulator_dtype(jnp.result_type(leaf))), tree
    )


def to_accumulate(tree: Tree) -> Tree:
    """A tree that workers average, cast as by `upcast`.

    Raises:
      TypeError: where a leaf is not floating.
    """
    checks.floating(tree)
    return upcast(tree)


def times(factor: jax.typing.ArrayLike, leaf: jax.Array) -> jax.Array:
    """A leaf times a number, in the dtype of the leaf whatever that of the number."""
    return jnp.asarray(factor, leaf.dtype) * leaf


def downcast(tree: Tree, like: Tree) -> Tree:
    """Casts floats to the dtypes of another tree; finite numbers stay finite."""

    def cast(leaf: jax.Array, other: jax.Array) -> jax.Array:
        dtype = jnp.result_type(other)
        if jnp.result_type(leaf) == dtype or not (
            is_floating(leaf) and is_floating(other)
        ):
            return leaf
        if jnp.finfo(dtype).bits < jnp.finfo(leaf.dtype).bits:
            leaf = _finite_where(leaf, leaf, dtype)
        return leaf.astype(dtype)

    return jax.tree.map(cast, tree, like)


def _finite_where(given: jax.Array, leaf: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """A leaf within the range of a dtype, where what was given is not infinite."""
    limits = jnp.finfo(dtype)
    clipped = jnp.clip(leaf, float(limits.min), float(limits.max))
    return jnp.where(jnp.isinf(given), given, clipped)


def zeros_to_accumulate(tree: Tree) -> Tree:
    """Zeros in the shapes of a tree and the dtypes that it is accumulated in.

    They lie on the devices as the leaves do.

    Raises:
      TypeError: where a leaf is not floating.
    """
    checks.floating(tree)
    return jax.tree.map(
        lambda leaf: jnp.zeros_like(leaf, accumulator_dtype(jnp.result_type(leaf))),
        tree,
    )


def shares(count: int) -> tuple[float, float]:
    """How to average so many finite numbers without an infinite sum on the way.

    Their mean is the sum of each times `share`, over `rest` (see `mean_of`). The share
    is a power of two and `rest` has the digits of the count, so that the mean has the
    bits that the sum over the count has; but for shares too small to be normal numbers,
    which XLA may take for 0.

    Returns:
      The share, at most 1 / count, and the rest, which is `count * share`.
    """
    share = 0.5 ** (count - 1).bit_length()
    return share, count * share


def mean_of(total: jax.Array, rest: float) -> jax.Array:
    """The mean, given the sum of shares; finite where the sum is."""
    mean = total / rest
    if rest == 1 or not is_floating(total):
        return mean
    # Of numbers next to the largest the rounding of the sum leads beyond it.
    return _finite_where(total, mean, mean.dtype)


def mean_over_workers(leaf: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """The mean along the leading axis, in a dtype of floats that is as wide or wider.

    It is finite where the leaf is.
    """
    share, rest = shares(leaf.shape[0])
    return mean_of(jnp.sum(leaf.astype(dtype) * share, axis=0), rest)


def whole_mean_over_workers(leaf: jax.Array) -> jax.Array:
    """The mean of whole numbers along the leading axis, rounded.

    Large ones have too many digits for floats; what their division leaves has few.
    """
    dtype = leaf.dtype if leaf.dtype.itemsize >= 4 else jnp.dtype(jnp.int32)
    whole, left = jnp.divmod(leaf.astype(dtype), dtype.type(len(leaf)))
    left = jnp.round(jnp.mean(left.astype(jnp.float32), axis=0)).astype(dtype)
    return (jnp.sum(whole, axis=0, dtype=dtype) + left).astype(leaf.dtype)


def scale_floats(tree: Tree, factor: float) -> Tree:
    """Multiplies what is floating in a tree by a power of two."""
    return jax.tree.map(lambda leaf: leaf * factor if is_floating(leaf) else leaf, tree)


def is_floating(leaf: jax.typing.ArrayLike) -> bool:
    """Whether a leaf has a real dtype that is floating."""
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.floating))


def size_in_bits(tree: Tree) -> int:
    """The size of all arrays of a tree."""
    return sum(
        8 * leaf.dtype.itemsize * math.prod(leaf.shape)
        for leaf in jax.tree.leaves(tree)
    )


def entries_in(tree: Tree) -> int:
    """How many numbers all leaves of a tree hold."""
    return sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(tree))


def to_vectors(
    tree: Tree, per_leaf: bool
) -> tuple[dict[int, jax.Array], Callable[[dict[int, jax.Array]], Tree]]:
    """Flattens a tree to one vector, or to one vector a leaf.

    Returns:
      The vectors that are not empty, by the index of their leaf (0 for the whole
      tree), and the way back, which keeps the dtypes of the vectors it is given.
    """
    leaves, treedef = jax.tree.flatten(tree)
    shapes = [jnp.shape(leaf) for leaf in leaves]
    flat = [jnp.reshape(leaf, -1) for leaf in leaves]
    if per_leaf:
        vectors = {index: leaf for index, leaf in enumerate(flat) if leaf.size}

        def restore_leaves(vectors: dict[int, jax.Array]) -> Tree:
            whole = [vectors.get(index, leaf) for index, leaf in enumerate(flat)]
            return treedef.unflatten(map(jnp.reshape, whole, shapes))

        return vectors, restore_leaves

    sizes = [leaf.size for leaf in flat]
    if not sum(sizes):
        return {}, lambda vectors: tree
    if len({leaf.dtype for leaf in flat}) > 1:
        # Written out, since JAX mixes no floats of 8 bits with others.
        flat = upcast(flat)
        dtype = max((leaf.dtype for leaf in flat), key=lambda dtype: dtype.itemsize)
        flat = [leaf.astype(dtype) for leaf in flat]
    whole = flat[0] if len(flat) == 1 else jnp.concatenate(flat)

    def restore_tree(vectors: dict[int, jax.Array]) -> Tree:
        ends = [sum(sizes[: index + 1]) for index in range(len(sizes) - 1)]
        return treedef.unflatten(map(jnp.reshape, jnp.split(vectors[0], ends), shapes))

    return {0: whole}, restore_tree


def find(tree: Tree, kind: type[Kind]) -> list[Kind]:
    """All nodes of a type in a tree of states, in order, outermost only."""
    nodes = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, kind))
    return [node for node in nodes if isinstance(node, kind)]


def map_unmasked(function: Callable, tree: Tree, *others: Tree) -> Tree:
    """Maps the leaves of a tree that `optax.masked` or `partition` left in it.

    The others are whole trees; what is masked stays as it is.
    """

    def on(leaf: Tree, *rest: Tree) -> Tree:
        return leaf if _is_masked(leaf) else function(leaf, *rest)

    return jax.tree.map(on, tree, *others, is_leaf=_is_masked)


def update_unmasked(function: Callable, whole: Tree, *others: Tree) -> Tree:
    """Maps a whole tree with others that `optax.masked` or `partition` left parts of.

    Where they are masked, a leaf or a whole branch, the tree stays as it is.

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
    """All states that have a hook of this name, in order, outermost only."""
    nodes = jax.tree.leaves(tree, is_leaf=lambda node: has_hook(node, name))
    return [node for node in nodes if has_hook(node, name)]


def class_names(tree: Tree) -> set[str]:
    """The names of the classes of all nodes and leaves of a tree."""
    found = set()

    def note(node: Tree) -> bool:
        found.add(type(node).__name__)
        return False

    jax.tree.leaves(tree, is_leaf=note)
    return found
