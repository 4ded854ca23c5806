"""Encoding what a selection keeps: its values by a compressor, and its places."""

import jax
import jax.numpy as jnp
from jax import lax

from gmc_jax.compressors._elias_fano import decode_places, encode_places
from gmc_jax.core import Compressor, Sparse, Tree


def encode_values(
    values: Compressor, key: jax.Array, kept: jax.Array
) -> tuple[Tree, jax.Array]:
    """Encodes the kept values [s] of a vector; returns the message and what is lost.

    The values are folded into the key. So workers that share a key, to draw the same
    entries, do not share their roundings.
    """
    kept = jnp.asarray(kept)
    return values.encode(jax.random.fold_in(key, _digest(kept)), kept)


def encode_sparse(
    values: Compressor, key: jax.Array, message: Sparse, d: int
) -> tuple[Sparse, jax.Array]:
    """Encodes a message whose indices in a vector of d entries ascend.

    Returns:
      The message, with encoded values, and words of `encode_places` for its indices.
      And what is lost of each value, [s].
    """
    code, lost = encode_values(values, key, message.values)
    return Sparse(code, encode_places(message.indices, d)), lost


def decode_sparse(
    values: Compressor, message: Sparse, like: jax.ShapeDtypeStruct, d: int
) -> Sparse:
    """Decodes one message of `encode_sparse`; `like` is that of the values."""
    stacked = jax.tree.map(lambda leaf: leaf[None], message.values)
    # Values are decoded without the key.
    decoded = values.decode(jax.random.key(0), stacked, like)
    return Sparse(decoded, decode_places(message.indices, like.size, d))


def add_lost(
    lost: jax.Array, indices: jax.Array, rounding: jax.Array, ascending: bool = False
) -> jax.Array:
    """Adds to `lost` what the encoding of the values at some indices has lost.

    `ascending` is what `extract` takes.
    """
    flat = lost.astype(wider(lost, rounding)).reshape(-1)
    added = flat.at[indices].add(
        rounding.astype(flat.dtype),
        mode="drop",
        unique_indices=True,
        indices_are_sorted=ascending,
    )
    return added.reshape(lost.shape)


def wider(lost: jax.Array, rounding: jax.Array) -> jnp.dtype:
    """The dtype of a sum: a rounding error of 16-bit numbers needs more bits."""
    return max(lost.dtype, rounding.dtype, key=lambda dtype: dtype.itemsize)


def _digest(kept: jax.Array) -> jax.Array:
    """A number that differs, almost surely, between values [s] that differ."""
    width = min(32, 8 * kept.dtype.itemsize)
    bits = lax.bitcast_convert_type(kept, jnp.dtype(f"uint{width}")).reshape(-1)
    factors = 2 * jnp.arange(bits.size, dtype=jnp.uint32) + 1
    mixed = bits.astype(jnp.uint32) * jnp.uint32(0x9E3779B9)
    return jnp.sum((mixed ^ (mixed >> 15)) * factors, dtype=jnp.uint32)
