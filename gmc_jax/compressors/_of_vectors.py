"""Compressors of arrays of any shape, made from functions of vectors."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from gmc_jax.core import Blockwise, Compressor, Drawn, Largest, Tree


def of_vectors(
    encode: Callable[[jax.Array, jax.Array], tuple[Tree, jax.Array]],
    decode: Callable[[jax.Array, Tree, int], jax.Array],
    *,
    shared: bool = False,
    selects: Largest | Drawn | Blockwise | None = None,
    linear: bool = False,
) -> Compressor:
    """Makes a compressor that reads an array as the vector of its entries.

    Args:
      encode: `(key, x[d]) -> (message, lost[d])`.
      decode: `(key, messages, d) -> x[d]`.
      shared: as in `Compressor`.
      selects: as in `Compressor`.
      linear: as in `Compressor`.
    """
    return Compressor(
        partial(_encode, encode), partial(_decode, decode), shared, selects, linear
    )


def array_like(like: jax.ShapeDtypeStruct | int) -> jax.ShapeDtypeStruct:
    """What `decode` was given; the size of a vector stands for one of float32."""
    if isinstance(like, int):
        return jax.ShapeDtypeStruct((like,), jnp.float32)
    return like


def _encode(encode: Callable, key: jax.Array, x: jax.Array) -> tuple[Tree, jax.Array]:
    message, lost = encode(key, jnp.reshape(x, -1))
    return message, lost.reshape(jnp.shape(x))


def _decode(
    decode: Callable, key: jax.Array, messages: Tree, like: jax.ShapeDtypeStruct | int
) -> jax.Array:
    like = array_like(like)
    return decode(key, messages, like.size).reshape(like.shape)
