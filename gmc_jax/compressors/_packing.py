"""Packing small codes into 32-bit words, and adding what words stand for."""

from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

WORD = 32


def pack(codes: jax.Array, bits: int = 1) -> jax.Array:
    """Packs codes into words.

    The bits of a code are cut into parts of 16, 8, 4, 2 or 1 bits, the lowest first. A
    part of b bits of all d codes takes w = ceil(d * b / 32) words: it is bits i * b and
    up of word j, where i * w + j is the index of the code.

    Args:
      codes: [d], unsigned integers below 2 ** bits, or booleans.
      bits: of a code, 1 to 32.

    Returns:
      The words of all parts, one part after another, [n] uint32.
    """
    codes = codes.astype(jnp.uint32)
    return jnp.concatenate(
        [_pack_part(codes >> low, width) for low, width in _parts(bits)]
    )


def unpack(words: jax.Array, d: int, bits: int = 1) -> jax.Array:
    """Unpacks words into the d codes that `pack` took, [d] uint32."""
    codes, start = jnp.zeros(d, jnp.uint32), 0
    for low, width in _parts(bits):
        count = -(-d * width // WORD)
        part = lax.slice_in_dim(words, start, start + count)
        codes = codes | _rows(part, width).reshape(-1)[:d] << low
        start += count
    return codes


def add_packed(
    messages: jax.Array,
    value: Callable[[jax.Array, jax.Array], jax.Array],
    d: int,
    bits: int = 1,
) -> jax.Array:
    """Adds what packed codes stand for, one message at a time, in their order.

    Args:
      messages: the words of each, [messages, words] uint32.
      value: `(message, codes) -> values`, entry by entry, from the number of a message
        and its codes, as booleans if they are one bit. Where `bits` divides 32, codes
        are those of whole words, [32 / bits, words] in the order of entries.
      d: the number of codes that `pack` took.
      bits: of a code, 1 to 32.

    Returns:
      The sum, [d], in the dtype of the values.
    """

    def values(message: jax.Array, words: jax.Array) -> jax.Array:
        if WORD % bits:
            return value(message, unpack(words, d, bits))
        rows = _rows(words, bits)
        return value(message, rows.astype(bool) if bits == 1 else rows)

    return add_messages(messages, values).reshape(-1)[:d]


def add_messages(
    messages: jax.Array, value: Callable[[jax.Array, jax.Array], jax.Array]
) -> jax.Array:
    """Adds what messages stand for, one at a time, in their order.

    Args:
      messages: stacked on a leading axis.
      value: `(index, message) -> values`, of any shape.

    Returns:
      The sum of the values.
    """
    count = messages.shape[0]

    def add(message: jax.Array, total: jax.Array) -> jax.Array:
        return total + value(message, messages[message])

    def total(unroll: int, zero: jax.Array) -> jax.Array:
        return lax.fori_loop(0, count, add, zero, unroll=unroll)

    one = jax.eval_shape(value, jnp.int32(0), messages[0])
    # A round reads and writes the whole sum. An accelerator does well to have few. On a
    # CPU rounds should not all be one: XLA would fuse them with what reads the sum, and
    # would divide to find the word of each entry.
    return lax.platform_dependent(
        jnp.zeros(one.shape, one.dtype),
        cpu=partial(total, min(4, max(1, count // 2))),
        default=partial(total, 8),
    )


def _parts(bits: int) -> Iterator[tuple[int, int]]:
    """The parts of a code: the lowest bit of each, and its width."""
    low = 0
    for width in (32, 16, 8, 4, 2, 1):
        if bits & width:
            yield low, width
            low += width


def _pack_part(codes: jax.Array, bits: int) -> jax.Array:
    """Packs the lowest bits of codes; `bits` divides 32."""
    count = WORD // bits
    rows = jnp.pad(codes & np.uint32(2**bits - 1), (0, -codes.size % count)).reshape(
        count, -1
    )
    return jnp.sum(rows << _shifts(bits), axis=0, dtype=jnp.uint32)


def _rows(words: jax.Array, bits: int) -> jax.Array:
    """Unpacks words [w] into codes [32 / bits, w]; `bits` divides 32."""
    return (words[None] >> _shifts(bits)) & np.uint32(2**bits - 1)


def _shifts(bits: int) -> jax.Array:
    return jnp.arange(0, WORD, bits, dtype=jnp.uint32)[:, None]
