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
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from gmc_jax.core import Sparse

# The sizes of blocks that each platform may use. Those of CPUs were measured there with
# 11 million entries and s = 11,000 (`python -m experiments bench compress`). A TPU pads
# rows to 128 entries, and a GPU reads 32 words together.
CPU_BLOCKS = (8,)
GPU_BLOCKS = (8, 32)
TPU_BLOCKS = (32, 128)


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

    The integers are non-negative. CPUs search for the s-th largest candidate by
    counting, accelerators sort the candidates. In both, ties go to the lowest index.
    """

    def by_counting(bits: jax.Array) -> jax.Array:
        choose = partial(_largest_by_counting, s=s)
        return descend(bits, s, choose, CPU_BLOCKS)

    return lax.platform_dependent(
        bits,
        cpu=by_counting,
        tpu=lambda bits: by_sorting(bits, 0, s, TPU_BLOCKS),
        default=lambda bits: by_sorting(bits, 0, s, GPU_BLOCKS),
    )


def at_least(bits: jax.Array, threshold: jax.Array, s: int) -> jax.Array:
    """Returns the indices [s], ascending, where bits [n] reach a threshold.

    If more than s entries reach it, these are the indices of the s largest. Unused
    slots hold n.
    """

    def by_counting(bits: jax.Array, threshold: jax.Array) -> jax.Array:
        # The extra slot shows whether more than s entries reach the threshold.
        choose = partial(first_at_least, threshold=threshold, s=s + 1)
        found = descend(bits, s + 1, choose, CPU_BLOCKS)
        # A loop of one round at most. A conditional would always run if it were
        # batched.
        return lax.while_loop(
            lambda state: state[0],
            lambda _: (jnp.array(False), largest(bits, s)),
            (found[-1] < bits.size, found[:-1]),
        )[1]

    return lax.platform_dependent(
        bits,
        threshold,
        cpu=by_counting,
        tpu=lambda bits, threshold: by_sorting(bits, threshold, s, TPU_BLOCKS),
        default=lambda bits, threshold: by_sorting(bits, threshold, s, GPU_BLOCKS),
    )


def by_sorting(
    bits: jax.Array,
    threshold: jax.typing.ArrayLike,
    s: int,
    blocks: tuple[int, ...],
) -> jax.Array:
    """What `at_least` returns, by sorting candidates."""
    # XLA's top-k of floats does not end on some GPUs, jax-ml/jax#19653.
    dtype = bits.dtype if bits.dtype.itemsize >= 4 else jnp.dtype(jnp.int32)
    least = jnp.asarray(threshold, dtype)

    def choose(level: jax.Array) -> jax.Array:
        values, indices = lax.top_k(level.astype(dtype), s)
        return jnp.sort(jnp.where(values >= least, indices, level.size))

    return descend(bits, s, choose, blocks)


def descend(
    bits: jax.Array,
    s: int,
    choose: Callable[[jax.Array], jax.Array],
    blocks: tuple[int, ...],
) -> jax.Array:
    """Chooses up to s entries of bits [n], level by level down a pyramid of maxima.

    Args:
      bits: non-negative integers, [n].
      s: the number of indices that `choose` returns. From the whole vector it must
        choose at most s entries.
      choose: `level[m] -> indices[s]`, ascending; unused slots hold m or more. If it
        chooses an entry of a level, it must choose the maximum of that entry's block
        in the level above.
      blocks: the sizes that blocks may have, powers of two.

    Returns:
      The indices [s] int32, ascending; unused slots hold n.
    """
    n = bits.size

    def read(block: int) -> float:
        """How many entries are chosen from, with one level more."""
        return n / block + block * s

    block = min(blocks, key=read)
    if read(block) > n:
        return choose(bits)
    level = jnp.pad(bits, (0, -n % block)).reshape(-1, block)
    chosen = descend(_maxima(level), s, choose, blocks)
    indices = chosen[:, None] * block + jnp.arange(block, dtype=jnp.int32)[None]
    candidates = level.at[chosen].get(
        mode="fill", fill_value=0, indices_are_sorted=True
    )
    found = choose(candidates.reshape(-1))
    indices = (
        indices.reshape(-1)
        .at[found]
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


def first_at_least(bits: jax.Array, threshold: jax.Array, s: int) -> jax.Array:
    """Returns the first s indices [s] where bits [n] reach a threshold.

    Unused slots hold n.
    """
    return _first_of_each_rank(jnp.cumsum(bits >= threshold, dtype=jnp.int32), s)


def extract(
    x: jax.Array, indices: jax.Array, ascending: bool = False
) -> tuple[Sparse, jax.Array]:
    """Moves the entries at some indices out of x [d] into a message.

    Args:
      x: the vector, [d].
      indices: distinct; slots that hold d are unused.
      ascending: whether the indices are known to ascend. Otherwise a TPU sorts them.

    Returns:
      The message, and x with zeros at those indices.
    """
    x = jnp.asarray(x)
    values = x.at[indices].get(mode="fill", fill_value=0, indices_are_sorted=ascending)
    # These zeros depend on the values. So XLA reads x before it writes, and copies
    # nothing. The zero of a NaN is a NaN, so that it shows in `lost` too.
    zeros = jnp.minimum(jnp.abs(values), 0)
    lost = x.at[indices].set(
        zeros, mode="drop", unique_indices=True, indices_are_sorted=ascending
    )
    return Sparse(values, indices), lost


def scatter_sum(
    key: jax.Array, messages: Sparse, d: int, ascending: bool = False
) -> jax.Array:
    """Decodes sparse messages, stacked on a leading axis, into their sum, [d].

    Each message is one scatter with unique indices, in the order of the messages. So
    the sum has the same bits on every device, and no second vector of size d is
    allocated. `ascending` is what `extract` takes.
    """
    del key
    messages = jax.tree.map(jnp.asarray, messages)

    def add(worker: jax.Array, total: jax.Array) -> jax.Array:
        return total.at[messages.indices[worker]].add(
            messages.values[worker],
            mode="drop",
            unique_indices=True,
            indices_are_sorted=ascending,
        )

    zero = jnp.zeros(d, messages.values.dtype)
    return lax.fori_loop(0, messages.indices.shape[0], add, zero)


def _maxima(level: jax.Array) -> jax.Array:
    """Returns the maxima [m] of blocks [m, block]."""

    def by_halves(level: jax.Array) -> jax.Array:
        while level.shape[1] > 1:
            half = level.shape[1] // 2
            level = jnp.maximum(level[:, :half], level[:, half:])
        return level[:, 0]

    # XLA reduces short rows slowly on CPUs.
    return lax.platform_dependent(
        level, cpu=by_halves, default=lambda level: jnp.max(level, axis=1)
    )


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
