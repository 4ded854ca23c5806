"""Counting entries of a long vector, and finding them by their ranks, fast on CPUs.

XLA's compiler for CPUs adds up short rows well, and long sums and running sums slowly.
So a vector is read in rows of 32 entries, and all that follows is 32 times shorter.
"""

import jax
import jax.numpy as jnp
from jax import lax

ROW = 32


def count(mask: jax.Array) -> jax.Array:
    """Counts the true entries of a mask [n] in int32; n is a multiple of 32."""
    # If both sums had one dtype, XLA would merge them to a long one.
    return jnp.sum(jnp.sum(_rows(mask), axis=1, dtype=jnp.int8).astype(jnp.int32))


def places(bits: jax.Array, value: jax.Array, s: int) -> jax.Array:
    """Finds all integers in bits [n] above a value, and the first that equal it.

    Args:
      bits: integers, [n]; n is a multiple of 32.
      value: the smallest that is wanted. At most s integers are above it.
      s: how many are wanted.

    Returns:
      The indices [s], ascending; n where fewer reach the value.
    """
    above, equal = words(_rows(bits > value)), words(_rows(bits == value))
    ones = count_ones(equal)
    above_until, equal_until = jnp.cumsum(jnp.stack([count_ones(above), ones]), axis=1)
    fits = s - above_until[-1]
    until = above_until + jnp.minimum(equal_until, fits)
    return ones_in(above, equal, jnp.maximum(fits - (equal_until - ones), 0), until, s)


def ones_in(
    above: jax.Array, equal: jax.Array, fits: jax.Array, until: jax.Array, s: int
) -> jax.Array:
    """Finds all ones of some words, and of other words as many as fit.

    Args:
      above: words, [n] uint32.
      equal: words, [n] uint32; none has a one where `above` has one.
      fits: how many ones of each word in `equal` count, the first ones, [n] int32.
      until: how many ones count up to the end of each word, [n] int32.
      s: how many are wanted.

    Returns:
      The indices [s] int32, ascending: 32 times the number of the word, and the bit.
      32 n where there are fewer ones, at most 2^31 - 1. Larger indices wrap around.
    """
    # XLA finds running maxima of an odd length slowly.
    slots = min(-(-s // ROW) * ROW, 2**31 - 1)
    rank = jnp.arange(slots, dtype=jnp.int32)
    # Each word that holds some is written where its ranks start. A search for each rank
    # would take longer.
    start = jnp.pad(until[:-1], (1, 0))
    start = jnp.where(until > start, start, slots)
    number = jnp.arange(until.size, dtype=jnp.int32)
    word = lax.cummax(jnp.zeros_like(rank).at[start].set(number, mode="drop"))
    is_found = rank < until[-1]
    size = above.size * ROW
    above, equal, fits, until = (
        of_all.at[word].get(mode="clip", indices_are_sorted=True)
        for of_all in (above, equal, fits, until)
    )
    # In its word, how many come before.
    ones = jnp.minimum(count_ones(equal), fits)
    before = rank - (until - count_ones(above) - ones)
    bit = _nth_one(above, equal, fits, before)
    # A vector of 2^31 - 1 entries is padded to one more, which int32 does not count.
    return jnp.where(is_found, word * ROW + bit, min(size, 2**31 - 1))[:s]


def _rows(mask: jax.Array) -> jax.Array:
    return mask.reshape(-1, ROW)


def words(rows: jax.Array) -> jax.Array:
    """Packs each row of a mask [..., 32] into a word, the first entry lowest."""
    shifts = jnp.arange(ROW, dtype=jnp.uint32)
    shifts = shifts.reshape((1,) * (rows.ndim - 1) + (ROW,))
    return jnp.sum(rows.astype(jnp.uint32) << shifts, axis=-1, dtype=jnp.uint32)


def count_ones(words: jax.Array) -> jax.Array:
    """Counts the ones of each word."""
    return lax.population_count(words).astype(jnp.int32)


def _nth_one(
    above: jax.Array, equal: jax.Array, fits: jax.Array, before: jax.Array
) -> jax.Array:
    """Returns the position of a one in each pair of words [s].

    Of the second word the first ones count alone, as many as fit. `before` ones precede
    the one that is wanted.
    """

    def halve(step: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        above, equal, fits, before, bit = state
        width = jnp.asarray(16 >> step, jnp.uint32)
        low = (jnp.uint32(1) << width) - 1
        ones = count_ones(equal & low)
        skipped = count_ones(above & low) + jnp.minimum(ones, fits)
        is_skipped = before >= skipped
        shift = jnp.where(is_skipped, width, 0)
        return (
            above >> shift,
            equal >> shift,
            jnp.where(is_skipped, jnp.maximum(fits - ones, 0), fits),
            jnp.where(is_skipped, before - skipped, before),
            bit + shift.astype(jnp.int32),
        )

    # Not unrolled: XLA would repeat all of it for each entry of a block that is found.
    state = (above, equal, fits, before, jnp.zeros_like(before))
    return lax.fori_loop(0, 5, halve, state)[4]
