"""Describes where two trees differ, in few words even for large trees."""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from gmc_jax.core import Tree


def first_difference(expected: Tree, given: Tree, name: str) -> str | None:
    """Describes the first place where two trees differ in structure, shape or dtype.

    Weak types, shardings and values do not count. A Python number is alike to an array
    of its dtype without dimensions.

    Args:
      expected: arrays or `jax.ShapeDtypeStruct`.
      given: arrays, tracers or numbers.
      name: the name of the tree in the description.

    Returns:
      What must be at that place and what was given, or None if the trees are alike.
    """
    # JAX compares structures: a container's own `==` may be False even for itself.
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
            yield f"`{place}` must be {_describe(one)}, got {_describe(other)}"


def _structures(expected: Tree, given: Tree, name: str) -> str:
    wanted, found = _children(expected), _children(given)
    if type(expected) is not type(given) or "" in wanted or "" in found:
        return f"`{name}` must be {_describe(expected)}, got {_describe(given)}"
    for key, child in wanted.items():
        if key not in found:
            return f"`{name}{key}` must be {_describe(child)}, but is missing"
        if jax.tree.structure(child) != jax.tree.structure(found[key]):
            return _structures(child, found[key], name + key)
    for key, child in found.items():
        if key not in wanted:
            return f"`{name}{key}` must not be there, got {_describe(child)}"
    for field in dataclasses.fields(expected) if _is_dataclass(expected) else ():
        one, other = getattr(expected, field.name), getattr(given, field.name)
        if f".{field.name}" not in wanted and one is not other and one != other:
            return (
                f"`{name}.{field.name}`, which is not an array, must be the same "
                "object, got another"
            )
    return f"the static data of `{name}`, {_describe(expected)}, must be the same"


def _children(node: Tree) -> dict[str, Tree]:
    """Returns the children of a node by key; a leaf is its own child, by the key ""."""
    found = jax.tree_util.tree_leaves_with_path(
        node, is_leaf=lambda inner: inner is not node
    )
    return {jax.tree_util.keystr(path): child for path, child in found}


def _is_dataclass(node: Tree) -> bool:
    return dataclasses.is_dataclass(node)


def _type_of(leaf: Tree) -> tuple[tuple[int, ...], jnp.dtype] | None:
    """Returns shape and dtype, or None for a leaf that is neither array nor number."""
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):  # Ten times as fast.
        return leaf.shape, leaf.dtype
    try:
        return np.shape(leaf), jnp.result_type(leaf)
    except TypeError:
        return None


def _describe(node: Tree) -> str:
    """Describes a node by its type, and an array by dtype and shape."""
    if node is None:
        return "None"
    array_type = _type_of(node) if "" in _children(node) else None
    if array_type is not None:
        shape, dtype = array_type
        return f"{dtype}{list(shape)}"
    if isinstance(node, tuple | list) and not hasattr(node, "_fields"):
        return f"a {type(node).__name__} of {len(node)}"
    return f"a `{type(node).__name__}`"
