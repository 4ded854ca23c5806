"""Selecting entries of a vector, and encoding and decoding them as `Sparse` messages.

The largest entries are found exactly and in few passes, by descending a pyramid. Each
level of it holds the maxima of the blocks of the level below. A block can hold one of
the s largest entries only if its maximum is one of the s largest maxima. So each level
has s * BLOCK candidates, of which the s largest are kept.

Magnitudes are compared as integers with the same bits, which have the same order: zero
is the smallest, infinity is larger than every number, and NaN is the largest.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from gmc_jax.core import Sparse

# Each level of the pyramid is BLOCK times shorter than the one below. A level of up to
# SPARSE * s entries is the top, since another one would cost more than it saves. Both
# were measured on a CPU with 11 million entries and s = 11,000 (`python -m experiments
# bench compress`).
BLOCK = 8
SPARSE = 8

# Up to FEW entries of a level are selected by a heap, which one call of XLA's runtime
# builds: it takes as long as counting, and compiles in a tenth of the time. A level of
# up to SHORT entries is then the top.
FEW = 1024
SHORT = 8192


def num_kept(ratio: float, d: int) -> int:
    """How many of d coordinates a ratio keeps: max(1, ceil(ratio * d))."""
    # In a dtype of low precision, such as bfloat16, the product would be rounded.
    return min(max(1, math.ceil(float(ratio) * d)), max(1, d))


def magnitude_bits(x: jax.Array) -> jax.Array:
    """Converts floats [d] to integers of the same width, ordered by magnitude."""
    width = x.dtype.itemsize * 8
    return lax.bitcast_convert_type(jnp.abs(x), jnp.dtype(f"int{width}"))


def largest(bits: jax.Array, s: int) -> jax.Array:
    """Returns the indices [s], ascending, of the s largest integers in bits [n].

    The integers are non-negative. Accelerators use `jax.lax.top_k`, CPUs descend the
    pyramid. In both, ties go to the lowest index.
    """

    def by_sorting(bits: jax.Array) -> jax.Array:
        return jnp.sort(lax.top_k(bits, s)[1])

    def by_pruning(bits: jax.Array) -> jax.Array:
        if s > FEW or bits.dtype.itemsize > 4:
            return descend(bits, s, lambda level: _largest_by_counting(level, s))
        top = max(SHORT, SPARSE * s)
        return descend(bits, s, lambda level: _largest_by_heap(level, s), top)

    return lax.platform_dependent(bits, cpu=by_pruning, default=by_sorting)


def descend(
    bits: jax.Array,
    s: int,
    choose: Callable[[jax.Array], jax.Array],
    top: int | None = None,
) -> jax.Array:
    """Chooses up to s entries of bits [n], level by level down a pyramid of maxima.

    Args:
      bits: non-negative integers, [n].
      s: the number of indices that `choose` returns. From the whole vector it must
        choose at most s entries.
      choose: `level[m] -> indices[s]`, ascending; unused slots hold m or more. If it
        chooses an entry of a level, it must choose the maximum of that entry's block
        in the level above.
      top: the size of a level up to which it is the top; SPARSE * s by default.

    Returns:
      The indices [s] int32, ascending; unused slots hold n.
    """
    n = bits.size
    top = SPARSE * s if top is None else top
    if n <= top:
        return choose(bits)
    level = jnp.pad(bits, (0, -n % BLOCK)).reshape(-1, BLOCK)
    maxima = level
    while maxima.shape[1] > 1:  # By halves: XLA reduces short rows slowly on CPUs.
        half = maxima.shape[1] // 2
        maxima = jnp.maximum(maxima[:, :half], maxima[:, half:])
    blocks = descend(maxima[:, 0], s, choose, top)
    indices = blocks[:, None] * BLOCK + jnp.arange(BLOCK, dtype=jnp.int32)[None]
    candidates = level.at[blocks].get(mode="fill", fill_value=0)
    chosen = choose(candidates.reshape(-1))
    indices = indices.reshape(-1).at[chosen].get(mode="fill", fill_value=n)
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


def first_at_least(bits: jax.Array, threshold: jax.Array, s: int) -> jax.Array:
    """Returns the first s indices [s] where bits [n] reach a threshold.

    Unused slots hold n.
    """
    return _first_of_each_rank(jnp.cumsum(bits >= threshold, dtype=jnp.int32), s)


def at_least(bits: jax.Array, threshold: jax.Array, s: int) -> jax.Array:
    """Returns the indices [s], ascending, where bits [n] reach a threshold.

    If more than s entries reach it, these are the indices of the s largest. Unused
    slots hold n.
    """
    n = bits.size
    # The extra slot shows whether more than s entries reach the threshold.
    found = descend(bits, s + 1, lambda level: first_at_least(level, threshold, s + 1))
    # A loop of one round at most. A conditional would always run if it were batched.
    return lax.while_loop(
        lambda state: state[0],
        lambda _: (jnp.array(False), largest(bits, s)),
        (found[-1] < n, found[:-1]),
    )[1]


def extract(x: jax.Array, indices: jax.Array) -> tuple[Sparse, jax.Array]:
    """Moves the entries at some indices out of x [d] into a message.

    Args:
      x: the vector, [d].
      indices: distinct; slots that hold d are unused.

    Returns:
      The message, and x with zeros at those indices.
    """
    x = jnp.asarray(x)
    values = x.at[indices].get(mode="fill", fill_value=0)
    # These zeros depend on the values. So XLA reads x before it writes, and copies
    # nothing. The zero of a NaN is a NaN, so that it shows in `lost` too.
    zeros = jnp.minimum(jnp.abs(values), 0)
    lost = x.at[indices].set(zeros, mode="drop", unique_indices=True)
    return Sparse(values, indices), lost


def scatter_sum(key: jax.Array, messages: Sparse, d: int) -> jax.Array:
    """Decodes sparse messages, stacked on a leading axis, into their sum, [d].

    Each message is one scatter with unique indices, in the order of the messages. So
    the sum has the same bits on every device, and no second vector of size d is
    allocated.
    """
    del key
    messages = jax.tree.map(jnp.asarray, messages)

    def add(worker: jax.Array, total: jax.Array) -> jax.Array:
        return total.at[messages.indices[worker]].add(
            messages.values[worker], mode="drop", unique_indices=True
        )

    zero = jnp.zeros(d, messages.values.dtype)
    return lax.fori_loop(0, messages.indices.shape[0], add, zero)


def _largest_by_heap(bits: jax.Array, s: int) -> jax.Array:
    """Finds the s largest by XLA's selection of floats, which compares their bits."""
    floats = lax.bitcast_convert_type(bits.astype(jnp.int32), jnp.float32)
    return jnp.sort(lax.top_k(floats, s)[1])


def _largest_by_counting(bits: jax.Array, s: int) -> jax.Array:
    """Finds the s largest by a bitwise search for the s-th largest value."""
    zero = jnp.zeros((), bits.dtype)
    value = largest_satisfying(
        lambda value: jnp.sum(bits >= value, dtype=jnp.int32) >= s, zero
    )
    above = jnp.cumsum(bits > value, dtype=jnp.int32)
    equal = jnp.cumsum(bits == value, dtype=jnp.int32)
    return _first_of_each_rank(above + jnp.minimum(equal, s - above[-1]), s)


def _first_of_each_rank(rank: jax.Array, s: int) -> jax.Array:
    """Returns where a running count first reaches 1, 2, ..., s; else its length."""
    return jnp.searchsorted(rank, jnp.arange(1, s + 1, dtype=rank.dtype)).astype(
        jnp.int32
    )
