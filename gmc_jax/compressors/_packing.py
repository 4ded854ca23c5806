"""Packing booleans into 32-bit words, one bit each."""

import jax
import jax.numpy as jnp

WORD = 32


def pack(bits: jax.Array) -> jax.Array:
    """Packs booleans [d] into words, [ceil(d / 32)] uint32."""
    rows = jnp.pad(bits, (0, -bits.size % WORD)).reshape(WORD, -1)
    shifts = jnp.arange(WORD, dtype=jnp.uint32)[:, None]
    return jnp.sum(rows.astype(jnp.uint32) << shifts, axis=0, dtype=jnp.uint32)


def unpack(words: jax.Array, d: int) -> jax.Array:
    """Unpacks words into the d booleans that `pack` took."""
    shifts = jnp.arange(WORD, dtype=jnp.uint32)[:, None]
    return ((words[None] >> shifts) & 1).astype(bool).reshape(-1)[:d]
