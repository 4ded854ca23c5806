"""Encoding each bucket of a vector by itself: codes of few bits, and a few numbers.

A bucket is some entries, one after another; the last one may be shorter. A vector is
seen as blocks [buckets, entries], the last one padded with zeros. Padding is not sent,
and changes no statistic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gmc_jax.compressors._draws import seeds_of, words
from gmc_jax.compressors._of_vectors import of_vectors
from gmc_jax.compressors._packing import add_messages, add_packed, pack
from gmc_jax.compressors._selection import magnitude_bits
from gmc_jax.core import Blockwise, Compressor
from gmc_jax.utils import checks
from gmc_jax.utils.trees import accumulator_dtype

# CPUs encode so many entries at a time, which stay in their cache.
CHUNK = 2**15
BYTE = 8


class Codes(NamedTuple):
    """A message of a code for each entry, and of numbers for each bucket.

    Attributes:
      codes: a byte each, [d] uint8; codes of another width are packed into 32-bit
        words, [ceil(d * bits / 32)] uint32. Where the width divides 32, and with w
        words, code i * w + j is bits `i * width` and up of word j.
      scales: what a code is multiplied by, [buckets] float32 (float64 for float64
        vectors); several numbers a bucket if they are what codes stand for.
    """

    codes: jax.Array
    scales: jax.Array


class Quantiser(NamedTuple):
    """How a block of entries becomes codes.

    Attributes:
      bits: of a code, 1 to 8.
      encode: `(blocks, counts, words) -> (codes, scales)`, from [n, b] floats, the
        number of entries in each block [n] int32, and a random word for each entry; to
        codes [n, b] uint8, and scales whose first axis is n.
      value: `(codes, *scales) -> values`, entry by entry, from the scales of each
        entry; where a bucket has several, one array for each. It scales with them.
      fit: `(blocks, counts, codes) -> scales`, if those depend on the codes; those of
        `encode` are then left out.
    """

    bits: int
    encode: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
    value: Callable[..., jax.Array]
    fit: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] | None = None


def check_bucket(bucket: int | None) -> None:
    """Raises unless a bucket has at least one entry, or is None for all of them."""
    checks.known(bucket=bucket)
    if bucket is not None:
        checks.positive_int(bucket=bucket)


def by_buckets(
    quantiser: Quantiser,
    bucket: int | None,
    message: Callable[[jax.Array, jax.Array], NamedTuple] = Codes,
) -> Compressor:
    """Makes a compressor that encodes each bucket of a vector by itself.

    What is lost is the vector minus what its message stands for.

    Args:
      quantiser: how.
      bucket: the number of entries of a bucket; None for one bucket of all.
      message: the class of messages, from codes and scales.
    """

    def size(d: int) -> int:
        return max(1, d if bucket is None else min(bucket, d))

    def encode(key, x):
        wide = jnp.asarray(x, accumulator_dtype(x.dtype))
        codes, scales, lost = _encode(quantiser, size(x.size), seeds_of(key), wide)
        sent = codes if quantiser.bits == BYTE else pack(codes, quantiser.bits)
        return message(sent, scales), lost

    def decode(key, messages, d):
        del key
        sent, scales = map(jnp.asarray, messages)
        columns = _columns(scales, 2)

        def value(index: jax.Array, codes: jax.Array) -> jax.Array:
            own = (column[index] for column in columns)
            return quantiser.value(codes, *_spread(own, size(d), codes.shape))

        if quantiser.bits == BYTE:
            return add_messages(sent, value)
        return add_packed(sent, value, d, quantiser.bits)

    selects = None if bucket is None else Blockwise(bucket)
    return of_vectors(encode, decode, selects=selects, linear=True)


# Statistics of blocks [n, b], each [n].


def largest(blocks: jax.Array) -> jax.Array:
    """The largest magnitude of each block; NaN if an entry is one."""
    n, b = blocks.shape
    # XLA reads a chunk of this shape with fewer instructions on CPUs, if no side is
    # above 32. A TPU would pad the sides of 4 to 128, and has no chunks.
    flat = n * b == CHUNK and b % 128 == 0 and b <= 32 * 128
    rows = blocks.reshape(n, -1, 32, 4) if flat else _in_rows(blocks)
    # CPUs compare integers faster, and NaN is the largest of them.
    bits = magnitude_bits(rows).max(axis=tuple(range(1, rows.ndim)))
    return lax.bitcast_convert_type(bits, blocks.dtype)


def total(blocks: jax.Array) -> jax.Array:
    """The sum of each block."""
    if len(blocks) == 1:
        return jnp.sum(blocks)[None]
    return _in_rows(blocks).sum(axis=1).sum(axis=1)


def are_entries(blocks: jax.Array, counts: jax.Array) -> jax.Array:
    """Which numbers of blocks are no padding, [n, b]."""
    return jnp.arange(blocks.shape[1], dtype=jnp.int32)[None] < counts[:, None]


def mean_and_deviation(
    blocks: jax.Array, counts: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The mean and the standard deviation of each block's entries."""
    size = counts.astype(blocks.dtype)
    mean = total(blocks) / size
    squares = jnp.square(blocks - mean[:, None])
    squares = jnp.where(are_entries(blocks, counts), squares, 0)
    return mean, jnp.sqrt(total(squares) / size)


def inverse(scale: jax.Array) -> jax.Array:
    """1 / scale, and 0 where that would overflow, or the scale is NaN."""
    usable = scale >= jnp.finfo(scale.dtype).tiny
    # The division comes last: XLA then divides once for a block, not for each entry.
    return 1 / jnp.where(usable, scale, jnp.inf)


def invertible(scale: jax.Array) -> jax.Array:
    """Limits a scale to 2^126 (2^1022): the inverse of more is no normal number."""
    limit = 2.0 ** -int(jnp.finfo(scale.dtype).minexp)
    return at_most(scale, limit, scale)


def multipliable(scale: jax.Array, factor: float, given: jax.Array) -> jax.Array:
    """Limits a scale as `at_most` does, so that the factor times it is finite."""
    limits = jnp.finfo(scale.dtype)
    limit = float(limits.max) * (1 - 2 * float(limits.eps)) / factor
    return at_most(scale, limit, given)


def at_most(scale: jax.Array, limit: float, given: jax.Array) -> jax.Array:
    """Limits a scale, but where the number that it is made of is infinite."""
    return jnp.where(jnp.isinf(given), given, jnp.minimum(scale, limit))


def _in_rows(blocks: jax.Array) -> jax.Array:
    """Blocks [n, b] as [n, rows, 32] where b allows it: CPUs reduce that faster."""
    n, b = blocks.shape
    width = 32 if b % 32 == 0 else b
    return blocks.reshape(n, b // width, width)


# Vectors in blocks.


def _encode(
    quantiser: Quantiser, b: int, seeds: jax.Array, x: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Codes [d], scales and what is lost [d], of x [d] in blocks of b entries."""
    rows = max(1, CHUNK // b)
    whole = partial(_encode_at_once, quantiser, b)
    if x.size < 2 * rows * b:
        return whole(seeds, x)
    return lax.platform_dependent(
        seeds, x, cpu=partial(_encode_in_chunks, quantiser, b, rows), default=whole
    )


def _encode_at_once(
    quantiser: Quantiser, b: int, seeds: jax.Array, x: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    codes, scales = _codes(quantiser, b, seeds, x, fit=quantiser.fit)
    decoded = quantiser.value(codes, *_spread(_columns(scales), b, x.shape))
    return codes, scales, x - decoded


def _encode_in_chunks(
    quantiser: Quantiser, b: int, rows: int, seeds: jax.Array, x: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """As at once, some blocks after others.

    What is lost overwrites x, in a loop of its own: where a round has other readers of
    x, XLA copies all of x in each. Scales that are fitted to codes have one as well: it
    would compute the codes again for each that reads them.
    """
    size = rows * b
    count = x.size // size
    rest = count * size

    def put(into: jax.Array, part: jax.Array, start: jax.Array | int) -> jax.Array:
        return lax.dynamic_update_slice_in_dim(into, part, start, 0)

    def encode(chunk: jax.Array | int, state: tuple) -> tuple:
        part = lax.dynamic_slice_in_dim(x, chunk * size, size)
        codes, scales = _codes(quantiser, b, seeds, part, chunk * size)
        return put(state[0], codes, chunk * size), put(state[1], scales, chunk * rows)

    def subtract(chunk: jax.Array | int, lost: jax.Array) -> jax.Array:
        part, own = (
            lax.dynamic_slice_in_dim(of_all, chunk * size, size)
            for of_all in (lost, codes)
        )
        scale = (
            lax.dynamic_slice_in_dim(column, chunk * rows, rows)[:, None]
            for column in columns
        )
        decoded = quantiser.value(own.reshape(rows, b), *scale)
        return put(lost, part - decoded.reshape(-1), chunk * size)

    last = _codes(quantiser, b, seeds, x[rest:], rest) if rest < x.size else None
    like = jax.eval_shape(partial(_codes, quantiser, b), seeds, x)
    zeros = tuple(jnp.zeros(leaf.shape, leaf.dtype) for leaf in like)
    codes, scales = lax.fori_loop(0, count, encode, zeros)
    if last is not None:
        codes, scales = put(codes, last[0], rest), put(scales, last[1], count * rows)
    if quantiser.fit:
        scales = _fitted_in_chunks(quantiser.fit, b, rows, x, codes)
    columns = _columns(scales)
    done, lost = lax.while_loop(
        lambda state: state[0] < count,
        lambda state: (state[0] + 1, subtract(*state)),
        (jnp.int32(0), x),
    )
    if last is not None:
        # At a constant, XLA would read and write all of x rather than the rest.
        start = done * size
        own = lax.dynamic_slice_in_dim(lost, start, last[0].size)
        spread = _spread(_columns(scales[count * rows :]), b, last[0].shape)
        decoded = quantiser.value(last[0], *spread)
        lost = put(lost, own - decoded, start)
    return codes, scales, lost


def _codes(
    quantiser: Quantiser,
    b: int,
    seeds: jax.Array,
    x: jax.Array,
    start: jax.typing.ArrayLike = 0,
    fit: Callable | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Codes [d] and scales of x [d], which starts at an entry of the whole vector."""
    blocks, counts = _blocks(x, b)
    draws = words(seeds, start, blocks.size).reshape(blocks.shape)
    codes, scales = quantiser.encode(blocks, counts, draws)
    if fit:
        scales = fit(blocks, counts, codes)
    return codes.astype(jnp.uint8).reshape(-1)[: x.size], scales


def _fitted(fit: Callable, b: int, x: jax.Array, codes: jax.Array) -> jax.Array:
    blocks, counts = _blocks(x, b)
    return fit(blocks, counts, _blocks(codes, b)[0])


def _fitted_in_chunks(
    fit: Callable, b: int, rows: int, x: jax.Array, codes: jax.Array
) -> jax.Array:
    size = rows * b
    count = x.size // size

    def part(chunk: jax.Array, scales: jax.Array) -> jax.Array:
        own = (lax.dynamic_slice_in_dim(v, chunk * size, size) for v in (x, codes))
        fitted = _fitted(fit, b, *own)
        return lax.dynamic_update_slice_in_dim(scales, fitted, chunk * rows, 0)

    like = jax.eval_shape(partial(_fitted, fit, b), x, codes)
    scales = lax.fori_loop(0, count, part, jnp.zeros(like.shape, like.dtype))
    if count * size == x.size:
        return scales
    last = _fitted(fit, b, x[count * size :], codes[count * size :])
    return lax.dynamic_update_slice_in_dim(scales, last, count * rows, 0)


def _blocks(x: jax.Array, b: int) -> tuple[jax.Array, jax.Array]:
    """A vector in blocks [n, b], and the number of entries in each [n]."""
    blocks = jnp.pad(x, (0, -x.size % b)).reshape(-1, b)
    starts = b * jnp.arange(len(blocks), dtype=jnp.int32)
    return blocks, jnp.minimum(b, x.size - starts)


def _spread(
    columns: Iterable[jax.Array], b: int, shape: tuple[int, ...]
) -> list[jax.Array]:
    """The numbers of each entry, in the shape of the codes, from those of buckets."""
    size = math.prod(shape)

    def spread(column: jax.Array) -> jax.Array:
        each = jnp.broadcast_to(column[:, None], (column.size, b)).reshape(-1)
        # Words may hold more codes than there are entries.
        return jnp.pad(each, (0, max(0, size - each.size)))[:size].reshape(shape)

    return [spread(column) for column in columns]


def _columns(scales: jax.Array, axes: int = 1) -> list[jax.Array]:
    """The numbers of all buckets, an array of so many axes for each number.

    Loops take the columns, not scales: a CPU runs a loop over entries, in which columns
    are taken out of one array, without vector instructions.
    """
    if scales.ndim == axes:
        return [scales]
    return [scales[..., column] for column in range(scales.shape[-1])]
