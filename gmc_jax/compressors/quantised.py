"""A selection of entries whose values and places take few bits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from gmc_jax.compressors._kept_values import (
    add_lost,
    decode_sparse,
    encode_sparse,
    encode_values,
    wider,
)
from gmc_jax.compressors._of_vectors import array_like
from gmc_jax.compressors._sparse import extract, scatter_each
from gmc_jax.core import Blockwise, Compressor, Drawn, Largest, Sparse, Tree
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def quantised(selection: Compressor, values: Compressor) -> Compressor:
    """Sends the entries that one compressor selects, encoded by another.

        (kept, places), rest = selection(x)
        code, rounding = values(kept)
        message = (code, places),   lost = rest + rounding at the places

    `quantised(top_k(0.01), dense())` is `top_k(0.01)` with narrow places: 40.6 bits an
    entry in place of 64. Places are encoded as by Elias and Fano, in about
    2 + log2(d / s) bits for each of s among d. A shared selection, `random_k` or
    `random_block`, sends no places. `chunked_top_k` packs its places itself, and
    `values` encodes each chunk by itself.

    Unused slots of the selection hold the value 0, and are encoded with the others.
    Messages are decoded one at a time. But of `chunked_top_k`, and of leaves that are
    split over devices, the decoded values of all messages are held at once.

    On split leaves the devices of a worker add up the values that are to be sent, and
    each encodes all of them alike.

    Args:
      selection: what selects the entries, and sends them as they are: a compressor
        whose message is `Sparse`, or which says that its entries are `Drawn`.
      values: what encodes the vector of the kept values. It sends a part of each of
        them, and decodes without the key.

    Returns:
      A compressor. Its message is `Sparse` where that of the selection is. The field
      `values` is then the message of `values`, and `indices` holds packed words. The
      message of a selection whose entries are `Drawn` is that of `values`.

    Raises:
      TypeError: if an argument is not a compressor, or the messages of the selection
        are not `Sparse` and its entries not `Drawn`.
      ValueError: if the selection is itself `quantised`, or `values` draws which of
        the values it sends.

    Guarantees:
      x = decoded + lost, the rounding of the values included.
      With `dense()` it decodes and loses what the selection does, bit for bit.
      The entries kept are those of the selection, with the same key.
      Workers that share a key round their values with draws of their own, unless their
      values are the same.
      The message of s entries among d has s + floor(d / 2^l) + s l bits of places, with
      l = floor(log2((d + 1) / s)), but for what fills the last words.

    References:
      Elias, "Efficient Storage and Retrieval by Content and Address of Static Files",
      Journal of the ACM, 1974; Basu, Data, Karakus and Diggavi, "Qsparse-local-SGD",
      NeurIPS 2019, whose operators are sparse and quantised.
    """
    checks.compressor(selection=selection)
    checks.compressor(values=values)
    if isinstance(values.selects, Drawn):
        raise ValueError(
            "`values` must send a part of every value that it gets, got "
            f"{checks.shown(values)}, which draws some of them. Choose fewer entries "
            "by the ratio of `selection`."
        )
    selects = selection.selects
    if selects is not None and selects.values is not None:
        raise ValueError(
            "`selection` must send its values as they are, got "
            f"{checks.shown(selection)}, which encodes them. Pass the selection that "
            "it is made of."
        )
    if isinstance(selects, Drawn):
        return _of_drawn(selection, selects, values)
    shape = jax.ShapeDtypeStruct((1,), jnp.float32)
    message = _message(selection, shape)
    if selection.shared or not isinstance(message, Sparse):
        raise TypeError(
            "`selection` must send values and their indices, as `Sparse`, or say that "
            f"its entries are `Drawn`, got {checks.shown(selection)}. To encode every "
            "entry, use `values` alone."
        )
    if isinstance(selects, Blockwise):
        return _of_blocks(selection, selects, values)
    return _of_sparse(selection, values)


def _message(selection: Compressor, like: jax.ShapeDtypeStruct) -> Tree:
    """The shapes of a message; JAX's devices are left alone.

    A compressor is often made before `jax.distributed.initialize`, which must come
    first.
    """

    def encode(x: jax.Array) -> Tree:
        return selection.encode(jax.random.key(0), x)[0]

    return jax.eval_shape(encode, like)


def _of_sparse(selection: Compressor, values: Compressor) -> Compressor:
    selects = selection.selects
    ascends = isinstance(selects, Largest)

    def encode(key, x):
        message, lost = selection.encode(key, x)
        if not ascends:
            ordered = lax.sort((message.indices, message.values), num_keys=1)
            message = Sparse(ordered[1], ordered[0])
        code, rounding = encode_sparse(values, key, message, x.size)
        return code, add_lost(lost, message.indices, rounding, ascending=True)

    def decode(key, messages, like):
        like = array_like(like)
        if isinstance(selects, Largest):
            slots = selects.num_kept(like.size)
        else:
            message = _message(selection, like)
            slots = message.indices.size
        kept = jax.ShapeDtypeStruct((slots,), like.dtype)

        def one(message: Sparse) -> Sparse:
            return decode_sparse(values, message, kept, like.size)

        return scatter_each(one, messages, like.size).reshape(like.shape)

    if isinstance(selects, Largest):
        selects = Largest(selects.num_kept, selects.level, values)
    return Compressor(encode, decode, selects=selects, linear=values.linear)


def _of_drawn(selection: Compressor, selects: Drawn, values: Compressor) -> Compressor:
    def encode(key, x):
        indices = selects.indices(key, x.size)
        sent, lost = extract(x.reshape(-1), indices)
        code, rounding = encode_values(values, key, sent.values)
        return code, add_lost(lost, indices, rounding).reshape(x.shape)

    def decode(key, messages, like):
        like = array_like(like)
        indices = jax.eval_shape(lambda key: selects.indices(key, like.size), key)
        kept = jax.ShapeDtypeStruct(indices.shape, like.dtype)
        total = values.decode(key, messages, kept)
        return selection.decode(key, total[None], like)

    return Compressor(
        encode,
        decode,
        shared=True,
        selects=Drawn(selects.indices, values),
        linear=values.linear,
        additive=values.shared and values.additive,
    )


def _of_blocks(
    selection: Compressor, selects: Blockwise, values: Compressor
) -> Compressor:
    """Of a message whose `values` are a tree of arrays with a row for each block."""

    def encode_rows(key: jax.Array, rows: jax.Array):
        keys = jax.random.split(key, rows.shape[0])
        return jax.vmap(lambda key, kept: encode_values(values, key, kept))(keys, rows)

    def encode(key, x):
        (kept, places), lost = selection.encode(key, x)
        leaves, treedef = jax.tree.flatten(kept)
        pairs = [encode_rows(key, rows) for rows in leaves]
        code = treedef.unflatten([code for code, _ in pairs])
        rounding = treedef.unflatten([rounding for _, rounding in pairs])
        rounded = jax.tree.map(lambda leaf: leaf[None], Sparse(rounding, places))
        dtype = wider(lost, jax.tree.leaves(rounding)[0])
        like = jax.ShapeDtypeStruct(x.shape, dtype)
        lost = lost.astype(dtype) + selection.decode(key, rounded, like).astype(dtype)
        return Sparse(code, places), lost

    def decode(key, messages, like):
        like = array_like(like)
        message = _message(selection, like)
        kept, treedef = jax.tree.flatten(message.values)
        codes = treedef.flatten_up_to(messages.values)

        def decode_rows(rows: jax.ShapeDtypeStruct, code: Tree) -> jax.Array:
            """The values of all messages, [messages, blocks, kept]."""
            one = jax.ShapeDtypeStruct(rows.shape[1:], like.dtype)

            def decode_row(code: Tree) -> jax.Array:
                alone = jax.tree.map(lambda leaf: leaf[None], code)
                return values.decode(key, alone, one)

            return jax.vmap(jax.vmap(decode_row))(code)

        decoded = treedef.unflatten(map(decode_rows, kept, codes))
        return selection.decode(key, Sparse(decoded, messages.indices), like)

    selects = Blockwise(selects.size, values)
    return Compressor(encode, decode, selects=selects, linear=values.linear)
