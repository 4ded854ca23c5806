"""The largest entries of every row of an array."""

from __future__ import annotations

import math

import jax.numpy as jnp

from gmc_jax.compressors._of_vectors import array_like
from gmc_jax.compressors._packing import pack, unpack
from gmc_jax.compressors._rows import in_vector, largest_in_rows
from gmc_jax.compressors._sparse import extract, scatter_each
from gmc_jax.core import Compressor, Sparse
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def top_k_of_rows(count: int) -> Compressor:
    """Keeps the `count` entries of largest magnitude in each row of an array.

    A row runs along the last axis. A vector is one row, and so is the whole tree: pass
    `per_leaf=True` to the channel, so that leaves keep their shapes. A row of no more
    entries is sent whole. Ties go to the lowest index. NaN counts as the largest.

    Args:
      count: how many entries of a row are sent, at least 1.

    Returns:
      A compressor whose message is `Sparse`: the values, and their places in the rows,
      ascending. A place in a row of c entries takes ceil(log2(c)) bits, packed.

    Raises:
      ValueError: if `count` is not a whole number of at least 1.

    Guarantees:
      In a row of c entries at least count / c of the energy is sent.
      The entries kept are those of `jax.lax.top_k(abs(row), count)`.
      Scaling x by a positive number scales the message and `lost` with it.

    References:
      Peng, Quesnelle and Kingma, "DeMo: Decoupled Momentum Optimization", 2024, where
      rows are chunks of frequencies.
    """
    count = checks.whole(count=count)

    def encode(key, x):
        del key
        x = jnp.asarray(x)
        rows, size, kept = _shape(x.shape, count)
        columns = largest_in_rows(x.reshape(rows, size), kept)
        sent, lost = extract(x.reshape(-1), in_vector(columns, size), ascending=True)
        places = pack(columns.reshape(-1), _bits(size))
        return Sparse(sent.values, places), lost.reshape(x.shape)

    def decode(key, messages, like):
        del key
        like = array_like(like)
        rows, size, kept = _shape(like.shape, count)

        def one(message: Sparse) -> Sparse:
            places = unpack(message.indices, rows * kept, _bits(size))
            columns = places.astype(jnp.int32).reshape(rows, kept)
            return Sparse(message.values, in_vector(columns, size))

        return scatter_each(one, messages, like.size).reshape(like.shape)

    return Compressor(encode, decode, linear=True)


def _shape(shape: tuple[int, ...], count: int) -> tuple[int, int, int]:
    """The number of rows, their size, and how many entries of each are kept."""
    size = shape[-1] if shape else 1
    rows = math.prod(shape[:-1])
    return rows, size, min(count, size)


def _bits(size: int) -> int:
    """The bits of a place in a row."""
    return max(1, (size - 1).bit_length())
