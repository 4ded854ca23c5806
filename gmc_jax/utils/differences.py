"""Where two trees differ, in words that stay short however large they are."""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from gmc_jax.core import Tree


def first_difference(expected: Tree, given: Tree, name: str) -> str | None:
    """The first place where a tree is of another structure, shape or dtype.

    Weak types, shardings and values do not count: a Python number is as good as an
    array of its type.

    Args:
      expected: arrays or `jax.ShapeDtypeStruct`.
      given: arrays, tracers, numbers.
      name: what the tree is called.

    Returns:
      What must be there and what is, or None where the trees are alike.
    """
    # Whether structures are equal is for JAX to say: a container may be equal to none.
    if jax.tree.structure(expected) == jax.tree.structure(given):
        return next(_leaves(expected, given, name), None)
    return _structures(expected, given, name)


def _leaves(expected: Tree, given: Tree, name: str) -> Iterator[str]:
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(expected),
        jax.tree.leaves(given),
        strict=True,
    )
    for (path, one), other in pairs:
        if _type_of(one) != _type_of(other):
            place = f"{name}{jax.tree_util.keystr(path)}"
            yield f"`{place}` must be {_words(one)}, but is {_words(other)}"


def _structures(expected: Tree, given: Tree, name: str) -> str:
    ours, theirs = _children(expected), _children(given)
    if type(expected) is not type(given) or "" in ours or "" in theirs:
        return f"`{name}` must be {_words(expected)}, but is {_words(given)}"
    for key, child in ours.items():
        if key not in theirs:
            return f"`{name}{key}` must be {_words(child)}, but is missing"
        if jax.tree.structure(child) != jax.tree.structure(theirs[key]):
            return _structures(child, theirs[key], name + key)
    for key, child in theirs.items():
        if key not in ours:
            return f"`{name}{key}` must not be there, but is {_words(child)}"
    for field in dataclasses.fields(expected) if _is_dataclass(expected) else ():
        one, other = getattr(expected, field.name), getattr(given, field.name)
        if f".{field.name}" not in ours and one is not other and one != other:
            return (
                f"`{name}.{field.name}`, which is no array, must be the very same one, "
                "but is another"
            )
    return f"what is no array in `{name}`, {_words(expected)}, must be the same"


def _children(node: Tree) -> dict[str, Tree]:
    """What a container holds, by its keys in words; a leaf holds itself, by none."""
    found = jax.tree_util.tree_leaves_with_path(
        node, is_leaf=lambda inner: inner is not node
    )
    return {jax.tree_util.keystr(path): child for path, child in found}


def _is_dataclass(node: Tree) -> bool:
    return dataclasses.is_dataclass(node)


def _type_of(leaf: Tree) -> tuple[tuple[int, ...], jnp.dtype] | None:
    """Shape and dtype, or None of what is no array and no number."""
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):  # Ten times faster.
        return leaf.shape, leaf.dtype
    try:
        return np.shape(leaf), jnp.result_type(leaf)
    except TypeError:
        return None


def _words(node: Tree) -> str:
    if node is None:
        return "None"
    kind = _type_of(node) if "" in _children(node) else None
    if kind is not None:
        shape, dtype = kind
        return f"{dtype}{list(shape)}"
    if isinstance(node, tuple | list) and not hasattr(node, "_fields"):
        return f"a {type(node).__name__} of {len(node)}"
    return f"a `{type(node).__name__}`"
