"""The largest entries of every chunk of a vector."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gmc_jax.compressors._of_vectors import of_vectors
from gmc_jax.compressors._packing import pack, unpack
from gmc_jax.compressors._rows import in_vector, largest_in_rows
from gmc_jax.compressors._selection import num_kept
from gmc_jax.compressors._sparse import extract, scatter_each
from gmc_jax.core import Blockwise, Compressor, Sparse
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def chunked_top_k(ratio: float, *, chunk: int = 4096) -> Compressor:
    """Keeps the k = max(1, ceil(ratio * chunk)) largest entries of every chunk.

    A chunk is `chunk` entries, one after another, of the flattened array. The last
    chunk of an array may be shorter: of its t entries max(1, ceil(ratio * t)) are kept.
    So an array of fewer entries than a chunk keeps what `top_k(ratio)` would. Within a
    chunk the selection is that of `top_k`.

    A place in a chunk takes ceil(log2(chunk)) bits, so 12 in the place of 32. With
    `quantised(chunked_top_k(1 / 64), values)` each chunk has its values encoded by
    itself. SparseLoCo cuts matrices into squares of 64 by 64 entries; here a chunk is
    as many entries of its rows, one after another. So no shape needs padding. In the
    first version of its code chunks are whole rows of matrices: `top_k_of_rows`.

    Args:
      ratio: the fraction of a chunk that is sent, in (0, 1].
      chunk: how many entries are a chunk, at least 2.

    Returns:
      A compressor that encodes each chunk by itself. Its message is `Sparse`. `values`
      is a tuple: an array [chunks, k], and [1, rest] for a shorter last chunk, where
      there are such. `indices` holds the places in the chunks, packed.

    Raises:
      TypeError: if `chunk` is not a whole number.
      ValueError: if `ratio` does not lie in (0, 1], or `chunk` is less than 2.

    Guarantees:
      Exactly k entries of each whole chunk are sent, those of
      `jax.lax.top_k(abs(chunk), k)`.
      At least k / chunk of the energy of each chunk is sent.
      Scaling x by a positive number scales the message and `lost` with it.

    References:
      Sarfi, Therien, Lidin and Belilovsky, "Communication Efficient LLM Pre-training
      with SparseLoCo", arXiv:2508.15706.
    """
    checks.known(ratio=ratio)
    checks.fraction(ratio=ratio)
    chunk = checks.whole(chunk=chunk)
    if chunk < 2:
        raise ValueError(
            f"`chunk` must be at least 2, got {chunk}. To send every entry, use "
            "`dense`."
        )
    bits = (chunk - 1).bit_length()

    def layout(d: int) -> list[tuple[int, int, int, int]]:
        """Of the whole chunks, and of the last: first entry, number, size, kept."""
        whole, rest = divmod(d, chunk)
        parts = [(0, whole, chunk), (whole * chunk, 1, rest)]
        return [
            (start, number, size, num_kept(ratio, size))
            for start, number, size in parts
            if number and size
        ]

    def indices_of(columns: list[jax.Array], d: int) -> jax.Array:
        """Indices in the vector, ascending, of places in the chunks."""
        pairs = zip(layout(d), columns, strict=True)
        return jnp.concatenate(
            [in_vector(own, size, start) for (start, _, size, _), own in pairs]
        )

    def split(flat: jax.Array, d: int) -> list[jax.Array]:
        """Rows of what is kept of each chunk, from all of it."""
        parts, begin = [], 0
        for _, number, _, kept in layout(d):
            parts.append(flat[begin : begin + number * kept].reshape(number, kept))
            begin += number * kept
        return parts

    def encode(key, x):
        del key
        x = jnp.asarray(x)
        columns = [
            largest_in_rows(x[start : start + number * size].reshape(-1, size), kept)
            for start, number, size, kept in layout(x.size)
        ]
        sent, lost = extract(x, indices_of(columns, x.size), ascending=True)
        places = jnp.concatenate([own.reshape(-1) for own in columns])
        values = tuple(split(sent.values, x.size))
        return Sparse(values, pack(places, bits)), lost

    def decode(key, messages, d):
        del key
        slots = sum(number * kept for _, number, _, kept in layout(d))

        def one(message: Sparse) -> Sparse:
            values, words = message
            places = unpack(words, slots, bits).astype(jnp.int32)
            kept = jnp.concatenate([part.reshape(-1) for part in values])
            return Sparse(kept, indices_of(split(places, d), d))

        return scatter_each(one, messages, d)

    return of_vectors(encode, decode, selects=Blockwise(chunk), linear=True)
