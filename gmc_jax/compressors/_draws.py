"""One random word for each entry of a vector, in a few operations on each."""

import jax
import jax.numpy as jnp
import numpy as np


def seeds_of(key: jax.Array) -> jax.Array:
    """Draws the two words, [2] uint32, on which all words of a vector depend."""
    return jax.random.bits(key, (2,), jnp.uint32)


def words(seeds: jax.Array, start: jax.typing.ArrayLike, count: int) -> jax.Array:
    """Returns a word for each of `count` entries, [count] uint32, uniform in 32 bits.

    A word is a hash of the entry's index and of two seeds. JAX's own generators take
    many more operations. The constants are those of the hash `lowbias32`. The second
    seed stands between its multiplications: the words of two keys would else be one
    sequence from different starts.

    Args:
      seeds: what `seeds_of` draws.
      start: the index of the first entry.
      count: the number of entries.
    """
    index = jnp.arange(count, dtype=jnp.uint32) + jnp.asarray(start, jnp.uint32)
    word = index * np.uint32(0x9E3779B9) + seeds[0]
    word = (word ^ (word >> 16)) * np.uint32(0x7FEB352D) + seeds[1]
    word = (word ^ (word >> 15)) * np.uint32(0x846CA68B)
    return word ^ (word >> 16)


def uniform(word: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Converts words to floats in [0, 1): of 24 bits, or of 32 in float64."""
    bits = 32 if jnp.finfo(dtype).nmant >= 32 else jnp.finfo(dtype).nmant + 1
    # Signed integers become floats in fewer operations.
    signed = word if bits == 32 else (word >> (32 - bits)).astype(jnp.int32)
    return signed.astype(dtype) * dtype.type(0.5**bits)
