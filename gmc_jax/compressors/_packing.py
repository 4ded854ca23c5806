"""Packing booleans into 32-bit words, one bit each, and adding what words stand for."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

WORD = 32


def pack(bits: jax.Array) -> jax.Array:
    """Packs booleans [d] into words, [ceil(d / 32)] uint32."""
    rows = jnp.pad(bits, (0, -bits.size % WORD)).reshape(WORD, -1)
    shifts = jnp.arange(WORD, dtype=jnp.uint32)[:, None]
    return jnp.sum(rows.astype(jnp.uint32) << shifts, axis=0, dtype=jnp.uint32)


def unpack(words: jax.Array, d: int) -> jax.Array:
    """Unpacks words into the d booleans that `pack` took."""
    return _rows(words).reshape(-1)[:d]


def add_packed(
    messages: jax.Array, value: Callable[[jax.Array, jax.Array], jax.Array], d: int
) -> jax.Array:
    """Adds what packed messages stand for, one message at a time, in their order.

    Args:
      messages: the words of each, [messages, ceil(d / 32)] uint32.
      value: `(message, bits) -> values`, entry by entry, from the number of a message
        and some of its booleans.
      d: the number of booleans that `pack` took.

    Returns:
      The sum, [d], in the dtype of the values.
    """
    count = messages.shape[0]

    def add(message: jax.Array, total: jax.Array) -> jax.Array:
        return total + value(message, _rows(messages[message]))

    def total(unroll: int, zero: jax.Array) -> jax.Array:
        return lax.fori_loop(0, count, add, zero, unroll=unroll)

    shape = (WORD, messages.shape[1])
    dtype = jax.eval_shape(value, 0, jax.ShapeDtypeStruct(shape, bool)).dtype
    # A round reads and writes the whole sum. An accelerator does well to have few. On a
    # CPU rounds should not all be one: XLA would fuse them with the slice below, and
    # would divide to find the word of each entry.
    rows = lax.platform_dependent(
        jnp.zeros(shape, dtype),
        cpu=partial(total, min(4, max(1, count // 2))),
        default=partial(total, 8),
    )
    return rows.reshape(-1)[:d]


def _rows(words: jax.Array) -> jax.Array:
    """Unpacks words [w] into booleans [32, w]."""
    shifts = jnp.arange(WORD, dtype=jnp.uint32)[:, None]
    return ((words[None] >> shifts) & 1).astype(bool)
