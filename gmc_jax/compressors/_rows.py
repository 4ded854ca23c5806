"""The largest entries of each row of a matrix.

On CPUs all rows are searched together, so that nothing is done row by row. As in
`_selection`, each row is first reduced to the maxima of its blocks.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from gmc_jax.compressors._ranks import ROW, count_ones, ones_in, words
from gmc_jax.compressors._selection import (
    CPU,
    largest,
    largest_satisfying,
    magnitude_bits,
)


@partial(jax.jit, static_argnames="k")
def largest_in_rows(x: jax.Array, k: int) -> jax.Array:
    """Returns the columns [rows, k] of the k largest magnitudes in each row of x.

    They ascend. Ties go to the first columns.
    """
    return lax.platform_dependent(
        x, cpu=partial(by_counting, k=k), default=jax.vmap(partial(largest, s=k))
    )


def in_vector(columns: jax.Array, size: int, start: int = 0) -> jax.Array:
    """Indices in a vector, [rows * k], of columns [rows, k] in rows of `size` entries.

    The first row begins at the entry `start`, and each where the one before it ends.
    """
    first = start + jnp.arange(len(columns), dtype=jnp.int32)[:, None] * size
    return (first + columns).reshape(-1)


def by_counting(x: jax.Array, k: int) -> jax.Array:
    """What `largest_in_rows` returns, by a search for the k-th largest of each row."""
    rows, n = x.shape

    def read(block: int) -> int:
        """How many entries of a row are chosen from."""
        return -(-n // block) + block * k

    block = min(CPU.blocks, key=read)
    if CPU.gain * read(block) > n:
        return _choose(magnitude_bits(x), k)
    level = jnp.pad(x, ((0, 0), (0, -n % block))).reshape(rows, -1, block)
    # One long axis: XLA reduces it faster.
    maxima = jnp.max(magnitude_bits(level.reshape(-1, block)), axis=1)
    # A few more blocks make whole words of candidates, so that nothing is padded.
    together = ROW // block
    enough = min(-(-k // together) * together, level.shape[1])
    blocks = _choose(maxima.reshape(rows, -1), enough)
    first = jnp.arange(rows, dtype=jnp.int32)[:, None] * level.shape[1]
    candidates = level.reshape(-1, block)[(first + blocks).reshape(-1)]
    chosen = _choose(magnitude_bits(candidates).reshape(rows, -1), k)
    at = jnp.take_along_axis(blocks, chosen // block, axis=1)
    return at * block + chosen % block


def _choose(bits: jax.Array, k: int) -> jax.Array:
    """The columns [rows, k] of the k largest integers in each row."""
    bits = in_words(bits)
    rows, n, _ = bits.shape
    found = places_in_rows(bits, jnp.full(rows, k, jnp.int32), rows * k)
    return found.reshape(rows, k) - jnp.arange(rows, dtype=jnp.int32)[:, None] * n * ROW


def in_words(bits: jax.Array, words: int | None = None) -> jax.Array:
    """Pads each row of integers [rows, n] with -1, [rows, words, 32]."""
    rows, n = bits.shape
    padding = (-n % ROW) if words is None else words * ROW - n
    bits = jnp.pad(bits, ((0, 0), (0, padding)), constant_values=-1)
    # Three axes: XLA would divide to find the row of each entry of a long one.
    return bits.reshape(rows, -1, ROW)


def places_in_rows(bits: jax.Array, k: jax.Array, total: int) -> jax.Array:
    """The places of the k largest integers in each row; negative ones do not count.

    Args:
      bits: what `in_words` returns.
      k: of each row, [rows] int32.
      total: the sum of k.

    Returns:
      [total] int32, ascending, as if the rows were one vector.
    """

    def enough(value: jax.Array) -> jax.Array:
        counts = jnp.sum(bits >= value[:, None, None], axis=2, dtype=jnp.int8)
        return jnp.sum(counts, axis=1, dtype=jnp.int32) >= k

    value = largest_satisfying(enough, jnp.zeros(len(bits), bits.dtype))
    value = value[:, None, None]
    above, equal = words(bits > value), words(bits == value)
    more, ones = count_ones(above), count_ones(equal)
    fits = k[:, None] - jnp.sum(more, axis=1, keepdims=True, dtype=jnp.int32)
    fits = jnp.maximum(fits - (jnp.cumsum(ones, axis=1) - ones), 0)
    until = jnp.cumsum((more + jnp.minimum(ones, fits)).reshape(-1))
    above, equal, fits = (of_all.reshape(-1) for of_all in (above, equal, fits))
    return ones_in(above, equal, fits, until, total)
