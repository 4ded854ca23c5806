"""Selecting the largest entries of a vector.

The largest entries are found exactly and in few passes, by descending a pyramid. Each
level of it holds the maxima of the blocks of the level below. A block can hold one of
the s largest entries only if its maximum is one of the s largest maxima. So the
entries of s blocks are candidates, of which the s largest are kept.

Magnitudes are compared as integers with the same bits, which have the same order: zero
is the smallest, infinity is larger than every number, and NaN is the largest.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gmc_jax.compressors._ranks import ROW, count, places


class Pyramid(NamedTuple):
    """How a platform builds its pyramid.

    Attributes:
      blocks: the sizes that blocks may have.
      gain: by how much a level must reduce the entries that are chosen from.
      shortest: how many entries a vector must have. Compiling a level for fewer takes
        longer than it saves.
      part: the size of the blocks that candidates from larger blocks are divided into,
        to choose among them by another pyramid; None if they are not divided.
    """

    blocks: tuple[int, ...]
    gain: float
    shortest: int = 0
    part: int | None = None


# Measured with up to 100 million entries (`python -m experiments bench compress`).
CPU = Pyramid((8, 16, 32), gain=3, shortest=2**15)
# A GPU reads 32 words together. A TPU pads rows to 128, so that a vector in rows of 32
# takes four times its memory; few candidates may.
GPU = Pyramid((8, 32), gain=1)
TPU = Pyramid((32, 128), gain=1, part=32)

# On CPUs, up to FEW entries are selected by the heap of XLA's runtime. Of the two it is
# now the faster, now the slower; it always compiles much faster than counting.
FEW = 1024
HEAP = CPU._replace(shortest=2**13)

# From so many entries on, a sample saves more rounds of a search than it costs.
SAMPLED = 2**22


def num_kept(ratio: float, d: int) -> int:
    """How many of d coordinates a ratio keeps: max(1, ceil(ratio * d))."""
    # In a dtype of low precision, such as bfloat16, the product would be rounded.
    return min(max(1, math.ceil(float(ratio) * d)), max(1, d))


def magnitude_bits(x: jax.Array) -> jax.Array:
    """Converts floats [d] to integers of the same width, ordered by magnitude."""
    width = x.dtype.itemsize * 8
    return lax.bitcast_convert_type(jnp.abs(x), jnp.dtype(f"int{width}"))


def largest(x: jax.Array, s: int) -> jax.Array:
    """Returns the indices [s], ascending, of the s largest magnitudes in x [n].

    Ties go to the lowest index.
    """
    return at_least(x, None, s)


# JAX batches what is inside once, whatever batches the step that calls it.
@partial(jax.jit, static_argnames="s")
def at_least(x: jax.Array, threshold: jax.Array | None, s: int) -> jax.Array:
    """Returns the indices [s], ascending, where magnitudes of x [n] reach a threshold.

    If more than s entries reach it, these are the indices of the s largest; ties go to
    the lowest index. Unused slots hold n. CPUs search for the s-th largest candidate by
    counting, unless s is small. Accelerators sort the candidates.

    Args:
      x: the vector, [n].
      threshold: what `magnitude_bits` makes of it; None if all entries reach it.
      s: the number of slots, at most n.
    """

    def on_cpu(x: jax.Array, threshold: jax.Array | None) -> jax.Array:
        if s > FEW or x.dtype.itemsize > 4:
            return by_counting(x, threshold, s)
        # XLA has a heap for floats alone. It compares their bits, as integers.
        return by_sorting(x, threshold, s, HEAP, jnp.float32)

    return lax.platform_dependent(
        x,
        threshold,
        cpu=on_cpu,
        tpu=lambda x, threshold: by_sorting(x, threshold, s, TPU),
        default=lambda x, threshold: by_sorting(x, threshold, s, GPU),
    )


def by_counting(x: jax.Array, threshold: jax.Array | None, s: int) -> jax.Array:
    """What `at_least` returns, by a search for the s-th largest candidate."""
    all_reach = magnitude_bits(jnp.zeros((), x.dtype))
    least = all_reach if threshold is None else threshold

    def choose(level: jax.Array, slots: int) -> jax.Array:
        padded = jnp.pad(level, (0, -level.size % ROW), constant_values=-1)
        value = _separating(padded, least, s, slots)
        return jnp.minimum(places(padded, value, slots), level.size)

    # A few more blocks than needed are found in fewer rounds. With a multiple of 4
    # blocks nothing is padded.
    enough = 4 * -(-17 * s // 64)
    return descend(
        x, s, lambda level: choose(level, s), CPU, lambda level: choose(level, enough)
    )


def by_sorting(
    x: jax.Array,
    threshold: jax.typing.ArrayLike | None,
    s: int,
    pyramid: Pyramid,
    keys: jax.typing.DTypeLike | None = None,
) -> jax.Array:
    """What `at_least` returns, by sorting candidates, as integers or as other keys."""

    def choose(level: jax.Array) -> jax.Array:
        # XLA's top-k of floats does not end on some GPUs, jax-ml/jax#19653. There is
        # none of short integers everywhere.
        dtype = level.dtype if level.dtype.itemsize >= 4 else jnp.dtype(jnp.int32)
        level = lax.bitcast_convert_type(level.astype(dtype), keys or dtype)
        values, indices = lax.top_k(level, s)
        if threshold is None:
            return jnp.sort(indices)
        reached = lax.bitcast_convert_type(values, dtype) >= jnp.asarray(
            threshold, dtype
        )
        return jnp.sort(jnp.where(reached, indices, level.size))

    return descend(x, s, choose, pyramid, choose)


def descend(
    x: jax.Array,
    s: int,
    choose: Callable[[jax.Array], jax.Array],
    pyramid: Pyramid,
    choose_blocks: Callable[[jax.Array], jax.Array],
    bits_of: Callable[[jax.Array], jax.Array] = magnitude_bits,
) -> jax.Array:
    """Chooses up to s entries of x [n], level by level down a pyramid of maxima.

    Args:
      x: the vector, [n].
      s: the number of indices that `choose` returns.
      choose: `level[m] -> indices`, ascending, from non-negative integers; unused slots
        hold m.
      pyramid: how it is built.
      choose_blocks: as `choose`, from maxima of blocks. If `choose` chooses an entry,
        it must choose its block's maximum, in the level above.
      bits_of: makes those integers of entries of x, and 0 of 0. So x is compared
        without a copy of it.

    Returns:
      The indices [s] int32, ascending; unused slots hold n.
    """
    n, part = x.size, pyramid.part

    def read(block: int) -> float:
        """How many entries are chosen from, with one level more."""
        each = block if part is None or part >= block else block / part + part
        return n / block + each * s

    block = min(pyramid.blocks, key=read)
    if n < pyramid.shortest or pyramid.gain * read(block) > n:
        return choose(bits_of(x))
    level = jnp.pad(x, (0, -n % block)).reshape(-1, block)
    maxima = jnp.max(bits_of(level), axis=1)
    blocks = descend(
        maxima, s, choose_blocks, pyramid, choose_blocks, lambda bits: bits
    )
    indices = blocks[:, None] * block + jnp.arange(block, dtype=jnp.int32)[None]
    candidates = level.at[blocks].get(
        mode="fill", fill_value=0, indices_are_sorted=True
    )
    candidates = bits_of(candidates.reshape(-1))
    if part is None or part >= block:
        chosen = choose(candidates)
    else:
        parts = Pyramid((part,), pyramid.gain)
        chosen = descend(candidates, s, choose, parts, choose_blocks, lambda bits: bits)
    indices = (
        indices.reshape(-1)
        .at[chosen]
        .get(mode="fill", fill_value=n, indices_are_sorted=True)
    )
    return jnp.minimum(indices, n)


def largest_satisfying(
    holds: Callable[[jax.Array], jax.Array], zero: jax.Array
) -> jax.Array:
    """Finds the largest integer that satisfies a monotone predicate, bit by bit.

    Args:
      holds: maps an integer to a boolean, or an array of integers to an array of
        booleans, entry by entry. If it holds for an integer, it must hold for all
        smaller ones.
      zero: the zero, or array of zeros, that the search starts from; the dtype is a
        signed integer's.

    Returns:
      The largest such integer; 0 where the predicate holds for no positive integer.
    """
    one = jnp.ones_like(zero)
    width = zero.dtype.itemsize * 8 - 1

    def set_if_holds(bit: int | jax.Array, value: jax.Array) -> jax.Array:
        # Under `jax.disable_jit` the loop's counter is a Python integer.
        candidate = value | (one << jnp.asarray(width - 1 - bit, zero.dtype))
        return jnp.where(holds(candidate), candidate, value)

    return lax.fori_loop(0, width, set_if_holds, zero)


def _separating(bits: jax.Array, threshold: jax.Array, s: int, slots: int) -> jax.Array:
    """Finds a value that at least s integers in bits [n] reach, and at most `slots`.

    If none does it is the s-th largest. Where at most `slots` integers reach the
    threshold, it is the threshold.
    """
    width = bits.dtype.itemsize * 8 - 1

    def is_open(state: tuple[jax.Array, ...]) -> jax.Array:
        bit, _, reached = state
        return (bit < width) & (reached > slots)

    def set_if_holds(state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        bit, value, reached = state
        candidate = value | (jnp.ones_like(value) << (width - 1 - bit))
        number = count(bits >= candidate)
        holds = number >= s
        return (
            bit + 1,
            jnp.where(holds, candidate, value),
            jnp.where(holds, number, reached),
        )

    reached = count(bits >= threshold)
    value = jnp.where(reached > slots, 0, threshold)
    if slots > s and bits.size >= SAMPLED:
        # One row of 16 tells where to look.
        sample = bits[: bits.size // (16 * ROW) * 16 * ROW].reshape(-1, 16 * ROW)
        sample = sample[:, :ROW].reshape(-1)
        rank = max(1, (s + slots) * sample.size // (2 * bits.size))
        guess = _separating(sample, threshold, rank, rank)
        number = count(bits >= guess)
        is_enough = (number >= s) & (number <= slots)
        value = jnp.where(is_enough, guess, value)
        reached = jnp.where(is_enough, number, reached)
    start = (jnp.zeros((), bits.dtype), value, reached)
    return lax.while_loop(is_open, set_if_holds, start)[1]
