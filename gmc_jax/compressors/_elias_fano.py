"""Ascending indices in few bits: the code of Elias and Fano, of static size.

Of s indices in a vector of d entries, the l = floor(log2((d + 1) / s)) low bits of each
are packed. The rest h of the index of rank i is a one at bit h + i of a row of
s + floor(d / 2^l) bits. That is about 2 + log2(d / s) bits an index.

References: Elias, "Efficient Storage and Retrieval by Content and Address of Static
Files", Journal of the ACM, 1974; Fano, "On the Number of Bits Required to Implement an
Associative Memory", MIT, 1971.
"""

import jax
import jax.numpy as jnp
import numpy as np

from gmc_jax.compressors._packing import WORD, pack, unpack
from gmc_jax.compressors._ranks import count_ones, ones_in, words


def encode_places(indices: jax.Array, d: int) -> jax.Array:
    """Encodes indices as words.

    Args:
      indices: [s] int32, ascending; unused slots come last and hold d.
      d: the size of the vector, at most 2^31 - 1.

    Returns:
      The low bits as `pack` packs them, then the ones in words of 32 bits, [n] uint32.
    """
    s, places = indices.size, indices.astype(jnp.uint32)
    low = _low_bits(s, d)
    # Two of 2^31 - 1 indices may lie 2^32 bits apart, which int32 does not count.
    bit = (places >> low) + jnp.arange(s, dtype=jnp.uint32)
    # No two share a bit. They would share words, which GPUs write with atomics.
    ones = jnp.zeros((_high_words(s, d), WORD), jnp.bool_)
    ones = words(
        ones.at[(bit // WORD).astype(jnp.int32), (bit % WORD).astype(jnp.int32)].set(
            True,
            mode="promise_in_bounds",
            indices_are_sorted=True,
            unique_indices=True,
        )
    )
    if not low:
        return ones
    return jnp.concatenate([pack(places & np.uint32(2**low - 1), low), ones])


def decode_places(encoded: jax.Array, s: int, d: int) -> jax.Array:
    """Decodes the words of s indices in a vector of d entries, [s] int32."""
    low, start = _low_bits(s, d), encoded.size - _high_words(s, d)
    ones = encoded[start:]
    none = jnp.zeros_like(ones)
    until = jnp.cumsum(count_ones(ones))
    bit = ones_in(ones, none, none.astype(jnp.int32), until, s).astype(jnp.uint32)
    places = (bit - jnp.arange(s, dtype=jnp.uint32)) << low
    if low:
        places |= unpack(encoded[:start], s, low)
    return places.astype(jnp.int32)


def _low_bits(s: int, d: int) -> int:
    return max(0, ((d + 1) // s).bit_length() - 1)


def _high_words(s: int, d: int) -> int:
    return -(-(s + (d >> _low_bits(s, d))) // WORD)
