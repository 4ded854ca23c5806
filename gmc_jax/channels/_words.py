"""A tree of arrays as one vector of 32-bit words, and back."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from gmc_jax.core import Tree

_BYTES = 4


def to_words(tree: Tree) -> jax.Array:
    """The bits of all arrays of a tree, in order, [n] uint32.

    Each array begins at a new word.
    """
    words = [_words(leaf) for leaf in jax.tree.leaves(tree)]
    return jnp.concatenate(words) if words else jnp.zeros(0, jnp.uint32)


def from_words(words: jax.Array, like: Tree) -> Tree:
    """The tree that `to_words` took, given its `jax.ShapeDtypeStruct`s."""
    leaves, treedef = jax.tree.flatten(like)
    parts, start = [], 0
    for leaf in leaves:
        count = -(-math.prod(leaf.shape) * _width(leaf.dtype) // _BYTES)
        part = lax.slice_in_dim(words, start, start + count)
        start += count
        parts.append(_array(part, leaf))
    return treedef.unflatten(parts)


def _width(dtype: jnp.dtype) -> int:
    return jnp.dtype(dtype).itemsize


def _words(leaf: jax.Array) -> jax.Array:
    flat = jnp.ravel(leaf)
    if flat.dtype == bool:
        flat = flat.astype(jnp.uint8)
    each = max(1, _BYTES // _width(flat.dtype))
    if each > 1:
        flat = jnp.pad(flat, (0, -flat.size % each)).reshape(-1, each)
    return lax.bitcast_convert_type(flat, jnp.uint32).reshape(-1)


def _array(words: jax.Array, like: jax.ShapeDtypeStruct) -> jax.Array:
    dtype = jnp.dtype(jnp.uint8) if like.dtype == bool else like.dtype
    if _width(dtype) > _BYTES:
        words = words.reshape(-1, _width(dtype) // _BYTES)
    entries = lax.bitcast_convert_type(words, dtype).reshape(-1)
    size = math.prod(like.shape)
    return entries[:size].reshape(like.shape).astype(like.dtype)
