"""Selecting and sending a few coordinates, exactly and in few passes.

A block whose maximum is not among the s largest maxima of blocks holds none of the s
largest entries. So the largest entries are found by descending a pyramid of maxima: of
the s * BLOCK candidates at each level the s largest are kept. Magnitudes are compared
as the integers that their bits spell, which orders them, zeros and infinities and NaN
(the largest) included.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from gmc_jax.core import Sparse

# A level of the pyramid divides the candidates by BLOCK; below SPARSE * s entries
# another level costs more than it saves. Both were measured on a CPU with 11 million
# entries and s = 11,000 (`python -m experiments bench compress`).
BLOCK = 8
SPARSE = 8


def num_kept(ratio: float, d: int) -> int:
    """How many of d coordinates a ratio keeps: max(1, ceil(ratio * d))."""
    # As a Python float, whose product has enough digits whatever the ratio came as.
    return min(max(1, math.ceil(float(ratio) * d)), max(1, d))


def magnitude_bits(x: jax.Array) -> jax.Array:
    """The magnitudes of floats [d] as integers of the same width and order."""
    width = x.dtype.itemsize * 8
    return lax.bitcast_convert_type(jnp.abs(x), jnp.dtype(f"int{width}"))


def largest(bits: jax.Array, s: int) -> jax.Array:
    """The places [s], ascending, of the s largest non-negative integers in bits [n].

    Ties go to the lowest place, as in `jax.lax.top_k`, which accelerators use as it is.
    """

    def by_sorting(bits: jax.Array) -> jax.Array:
        return jnp.sort(lax.top_k(bits, s)[1])

    def by_pruning(bits: jax.Array) -> jax.Array:
        return descend(bits, s, lambda level: _largest_by_counting(level, s))

    return lax.platform_dependent(bits, cpu=by_pruning, default=by_sorting)


def descend(
    bits: jax.Array, s: int, choose: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """Chooses up to s entries of bits [n] level by level down a pyramid of maxima.

    Args:
      bits: non-negative integers, [n].
      s: the number of places that `choose` returns, at least the number it would
        choose from the whole vector.
      choose: `level[m] -> places[s]`, ascending; unused slots hold m or more. Whatever
        it chooses from a vector must lie in the blocks that it chooses by their maxima.

    Returns:
      The places [s] int32, ascending; unused slots hold n.
    """
    n = bits.size
    if n <= SPARSE * s:
        return choose(bits)
    level = jnp.pad(bits, (0, -n % BLOCK)).reshape(-1, BLOCK)
    maxima = level
    while maxima.shape[1] > 1:  # halving, since XLA's CPU reduces short rows slowly
        half = maxima.shape[1] // 2
        maxima = jnp.maximum(maxima[:, :half], maxima[:, half:])
    blocks = descend(maxima[:, 0], s, choose)
    places = blocks[:, None] * BLOCK + jnp.arange(BLOCK, dtype=jnp.int32)[None]
    candidates = level.at[blocks].get(mode="fill", fill_value=0)
    chosen = choose(candidates.reshape(-1))
    places = places.reshape(-1).at[chosen].get(mode="fill", fill_value=n)
    return jnp.minimum(places, n)


def largest_satisfying(
    holds: Callable[[jax.Array], jax.Array], zero: jax.Array
) -> jax.Array:
    """The greatest integer of which something holds that holds of all smaller ones.

    It is found bit by bit, and is 0 where nothing does.

    Args:
      holds: from an integer to a boolean, or from an array of both, entry by entry.
      zero: what to start from; its dtype has a sign.
    """
    one = jnp.ones_like(zero)
    width = zero.dtype.itemsize * 8 - 1

    def settle(bit: int | jax.Array, value: jax.Array) -> jax.Array:
        # Under `jax.disable_jit` the loop counts with Python's integers.
        candidate = value | (one << jnp.asarray(width - 1 - bit, zero.dtype))
        return jnp.where(holds(candidate), candidate, value)

    return lax.fori_loop(0, width, settle, zero)


def first_at_least(bits: jax.Array, threshold: jax.Array, s: int) -> jax.Array:
    """The first s places [s] of bits [n] at or above a threshold; unused slots: n."""
    return _first_of_each_rank(jnp.cumsum(bits >= threshold, dtype=jnp.int32), s)


def at_least(bits: jax.Array, threshold: jax.Array, s: int) -> jax.Array:
    """The places [s], ascending, of bits [n] at or above a threshold; unused slots: n.

    Where there are more than s, these are the s largest.
    """
    n = bits.size
    # One slot more than there are tells whether the threshold let too many through.
    found = descend(bits, s + 1, lambda level: first_at_least(level, threshold, s + 1))
    return lax.cond(found[-1] < n, lambda: largest(bits, s), lambda: found[:-1])


def extract(x: jax.Array, places: jax.Array) -> tuple[Sparse, jax.Array]:
    """Takes entries out of x [d]: the message of them, and x without them.

    The places are distinct; slots that hold d are unused.
    """
    x = jnp.asarray(x)
    values = x.at[places].get(mode="fill", fill_value=0)
    # What is written depends on what was read, or XLA copies x to keep the two apart.
    # A NaN stays, so that it is seen in what is lost as well.
    nothing = jnp.minimum(jnp.abs(values), 0)
    lost = x.at[places].set(nothing, mode="drop", unique_indices=True)
    return Sparse(values, places), lost


def scatter_sum(key: jax.Array, messages: Sparse, d: int) -> jax.Array:
    """Decodes sparse messages, stacked on a leading axis, to the sum of them, [d].

    One scatter a message, in their order, each with unique indices: the sum has the
    same bits wherever it is computed, and no second vector of size d is made.
    """
    del key
    messages = jax.tree.map(jnp.asarray, messages)

    def add(worker: jax.Array, total: jax.Array) -> jax.Array:
        return total.at[messages.indices[worker]].add(
            messages.values[worker], mode="drop", unique_indices=True
        )

    zero = jnp.zeros(d, messages.values.dtype)
    return lax.fori_loop(0, messages.indices.shape[0], add, zero)


def _largest_by_counting(bits: jax.Array, s: int) -> jax.Array:
    """The s largest by a search for the s-th largest value, bit by bit."""
    zero = jnp.zeros((), bits.dtype)
    value = largest_satisfying(
        lambda value: jnp.sum(bits >= value, dtype=jnp.int32) >= s, zero
    )
    above = jnp.cumsum(bits > value, dtype=jnp.int32)
    equal = jnp.cumsum(bits == value, dtype=jnp.int32)
    return _first_of_each_rank(above + jnp.minimum(equal, s - above[-1]), s)


def _first_of_each_rank(rank: jax.Array, s: int) -> jax.Array:
    """Where a count that grows by 0 or 1 first reaches 1 to s; never: its length."""
    return jnp.searchsorted(rank, jnp.arange(1, s + 1, dtype=rank.dtype)).astype(
        jnp.int32
    )
