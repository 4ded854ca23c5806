"""The largest entries of every row of an array."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from gmc_jax.compressors._packing import pack, unpack
from gmc_jax.compressors._selection import magnitude_bits
from gmc_jax.compressors._sparse import extract, scatter_sum
from gmc_jax.core import Compressor, Sparse, Tree
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def top_k_of_rows(count: int) -> Compressor:
    """Keeps the `count` entries of largest magnitude in each row of an array.

    A row runs along the last axis. A vector is one row, and so is the whole tree: pass
    `per_leaf=True` to the channel, so that leaves keep their shapes. A row of no more
    entries is sent whole. Ties go to the lowest index. NaN counts as the largest.

    Args:
      count: how many entries of a row are sent, at least 1.

    Returns:
      A compressor whose message is `Sparse`: the values, and their places in the rows,
      ascending. A place in a row of c entries takes ceil(log2(c)) bits, packed.

    Raises:
      ValueError: if `count` is not a whole number of at least 1.

    Guarantees:
      In a row of c entries at least count / c of the energy is sent.
      The entries kept are those of `jax.lax.top_k(abs(row), count)`.
      Scaling x by a positive number scales the message and `lost` with it.

    References:
      Peng, Quesnelle and Kingma, "DeMo: Decoupled Momentum Optimization", 2024, where
      rows are chunks of frequencies.
    """
    count = checks.whole(count=count)

    def encode(key, x):
        del key
        rows, size, kept = _shape(jnp.shape(x), count)
        packed, indices = _largest(jnp.reshape(x, (rows, size)), kept)
        sent, lost = extract(jnp.reshape(x, -1), indices, ascending=True)
        return Sparse(sent.values, packed), lost.reshape(jnp.shape(x))

    def decode(key, messages: Tree, like: jax.ShapeDtypeStruct | int):
        shape = (like,) if isinstance(like, int) else like.shape
        rows, size, kept = _shape(shape, count)
        indices = jax.vmap(partial(_unpacked, rows=rows, size=size, kept=kept))(
            messages.indices
        )
        total = scatter_sum(
            key, Sparse(messages.values, indices), math.prod(shape), ascending=True
        )
        return total.reshape(shape)

    return Compressor(encode, decode, linear=True)


def _shape(shape: tuple[int, ...], count: int) -> tuple[int, int, int]:
    """The number of rows, their size, and how many entries of each are kept."""
    size = shape[-1] if shape else 1
    rows = math.prod(shape[:-1])
    return rows, size, min(count, size)


def _bits(size: int) -> int:
    """The bits of a place in a row."""
    return max(1, (size - 1).bit_length())


@partial(jax.jit, static_argnames="kept")
def _largest(x: jax.Array, kept: int) -> tuple[jax.Array, jax.Array]:
    """The packed places of the largest of each row, and their indices in the array."""
    places = jnp.sort(lax.top_k(magnitude_bits(x), kept)[1], axis=-1)
    size = x.shape[-1]
    return pack(places.reshape(-1), _bits(size)), _in_vector(places, size)


@partial(jax.jit, static_argnames=("rows", "size", "kept"))
def _unpacked(words: jax.Array, rows: int, size: int, kept: int) -> jax.Array:
    """The indices in the array, from packed places."""
    places = unpack(words, rows * kept, _bits(size)).astype(jnp.int32)
    return _in_vector(places.reshape(rows, kept), size)


def _in_vector(places: jax.Array, size: int) -> jax.Array:
    """Indices in the flat array, from places in rows [rows, kept]."""
    starts = jnp.arange(len(places), dtype=jnp.int32)[:, None] * size
    return (places + starts).reshape(-1)
