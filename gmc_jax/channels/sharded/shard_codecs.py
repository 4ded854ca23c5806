"""Encoding and decoding the shards of split vectors.

Each device selects candidates from its own shard. The devices of a worker then agree on
the largest candidates (`global_top_k`), or take the entries of a shared draw that they
hold. What is encoded block by block is encoded shard by shard.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gmc_jax.channels._collectives import run_collective
from gmc_jax.channels.sharded.global_top_k import Candidates, global_top_k
from gmc_jax.channels.sharded.shards import Shards
from gmc_jax.channels.sharded.stacks import Vectors
from gmc_jax.compressors._kept_values import (
    add_lost,
    decode_sparse,
    encode_sparse,
    encode_values,
)
from gmc_jax.compressors._selection import largest, magnitude_bits
from gmc_jax.compressors._sparse import extract, scatter_sum
from gmc_jax.core import Compressor, Drawn, Largest, Sparse, Tree


class Codec(NamedTuple):
    """A compressor for the vectors of a tree, on one device.

    Attributes:
      encode: `(keys, vectors) -> (messages, lost)`; the keys are an array by the index
        of the leaf.
      decode: `(keys, messages) -> sums`, from messages that are stacked on a leading
        axis.
      add_up: `leaf -> axes`. Where a worker has several devices, the messages of those
        along these axes add up to one message, which all of them decode.
    """

    encode: Callable[[jax.Array, Vectors], tuple[dict[int, Tree], Vectors]]
    decode: Callable[[jax.Array, dict[int, Tree]], Vectors]
    add_up: Callable[[int], tuple[str, ...]]

    def run_collectives(
        self,
        collective_of: Callable[[tuple[str, ...]], Callable[[jax.Array], jax.Array]],
        messages: dict[int, Tree],
    ) -> dict[int, Tree]:
        """Runs a collective on the messages of a device, once for each `add_up`.

        Args:
          collective_of: `axes -> collective`, as in `run_collective`, for messages that
            add up along these axes.
          messages: by the index of the leaf.
        """
        received: dict[int, Tree] = {}
        for axes in dict.fromkeys(map(self.add_up, messages)):
            sent = {
                leaf: x for leaf, x in messages.items() if self.add_up(leaf) == axes
            }
            received |= run_collective(sent, collective_of(axes))
        return received


class ShardIndex(NamedTuple):
    """Which entries of the whole vectors a device holds.

    Attributes:
      sizes: of the whole vectors.
      global_indices: the indices of its entries in the whole vectors, ascending.
      is_owner: whether it is the first device that holds an entry.
    """

    sizes: dict[int, int]
    global_indices: Vectors
    is_owner: Vectors

    def local(self, leaf: int, wanted: jax.Array) -> jax.Array:
        """Where the shard has global indices; its size for those that it lacks."""
        held = self.global_indices[leaf]
        own_indices = jnp.searchsorted(held, wanted).astype(jnp.int32)
        found = held.at[own_indices].get(mode="fill", fill_value=-1) == wanted
        return jnp.where(found, own_indices, held.size)

    def decode(self, leaf: int, key: jax.Array, messages: Sparse) -> jax.Array:
        """The sum of sparse messages, at the entries of the shard."""
        own_indices = self.local(leaf, messages.indices)
        size = self.global_indices[leaf].size
        return scatter_sum(key, Sparse(messages.values, own_indices), size)


def drawn_shards(
    selects: Drawn, index: ShardIndex, shards: Shards, dtypes: dict[int, jnp.dtype]
) -> Codec:
    """Each device takes the entries of a shared draw that it holds.

    Where values are encoded, all devices do so with the values of all.
    """
    values = selects.values

    def drawn(leaf: int, key: jax.Array) -> jax.Array:
        return selects.indices(key, index.sizes[leaf])

    def encode(keys, vectors):
        messages, lost = {}, {}
        for leaf, x in vectors.items():
            own_indices = index.local(leaf, drawn(leaf, keys[leaf]))
            sent, lost[leaf] = extract(x, own_indices)
            owner = (
                index.is_owner[leaf].at[own_indices].get(mode="fill", fill_value=False)
            )
            own = jnp.where(owner, sent.values, 0)
            messages[leaf] = own
            if values is not None:
                message, rounding = encode_values(
                    values, keys[leaf], _together(own, shards)
                )
                messages[leaf] = shards.of_first(message, shards.names)
                lost[leaf] = add_lost(lost[leaf], own_indices, rounding)
        return messages, lost

    def decode(keys, messages):
        sums = {}
        for leaf, message in messages.items():
            indices = drawn(leaf, keys[leaf])
            if values is not None:
                like = jax.ShapeDtypeStruct(indices.shape, dtypes[leaf])
                message = values.decode(keys[leaf], message, like)[None]
            indices = jnp.broadcast_to(indices, message.shape)
            sums[leaf] = index.decode(leaf, keys[leaf], Sparse(message, indices))
        return sums

    return Codec(encode, decode, lambda leaf: shards.names)


def largest_of_shards(
    selects: Largest, index: ShardIndex, shards: Shards, dtypes: dict[int, jnp.dtype]
) -> Codec:
    """Each device takes its candidates that are among the largest of all devices.

    Where values are encoded, all devices do so with the worker's whole message, and the
    first of them sends.
    """
    values = selects.values

    def candidates_in(leaf: int, x: jax.Array) -> tuple[jax.Array, Candidates]:
        num_kept = selects.num_kept(index.sizes[leaf])
        bits = magnitude_bits(x)
        least = magnitude_bits(jnp.asarray(selects.level, x.dtype))
        own_indices = largest(x, min(num_kept, x.size))
        eligible = jnp.where(bits[own_indices] >= least, bits[own_indices], -1)
        global_indices = index.global_indices[leaf][own_indices]
        is_owner = index.is_owner[leaf][own_indices]
        return own_indices, Candidates(num_kept, eligible, global_indices, is_owner)

    def encode(keys, vectors):
        found = [candidates_in(leaf, x) for leaf, x in vectors.items()]
        selections = global_top_k([own for _, own in found], shards.names)
        messages, lost = {}, {}
        for (leaf, x), (own_indices, own), selection in zip(
            vectors.items(), found, selections, strict=True
        ):
            sent, lost[leaf] = extract(
                x, jnp.where(selection.is_selected, own_indices, x.size)
            )
            unused = shards.is_first() & (jnp.arange(own.num_kept) >= selection.used)
            empty = Sparse(
                jnp.zeros(own.num_kept, x.dtype),
                jnp.where(unused, index.sizes[leaf], 0).astype(jnp.int32),
            )
            messages[leaf] = jax.tree.map(
                lambda slots, values, at=selection.slots: slots.at[at].set(
                    values, mode="drop", unique_indices=True
                ),
                empty,
                Sparse(sent.values, own.global_indices),
            )
            if values is not None:
                whole = _together(messages[leaf], shards)
                indices, kept = lax.sort((whole.indices, whole.values), num_keys=1)
                message, rounding = encode_sparse(
                    values, keys[leaf], Sparse(kept, indices), index.sizes[leaf]
                )
                messages[leaf] = shards.of_first(message, shards.names)
                lost[leaf] = add_lost(lost[leaf], index.local(leaf, indices), rounding)
        return messages, lost

    def decode(keys, messages):
        if values is not None:
            messages = {
                leaf: _decoded(
                    values,
                    message,
                    jax.ShapeDtypeStruct(
                        (selects.num_kept(index.sizes[leaf]),), dtypes[leaf]
                    ),
                    index.sizes[leaf],
                )
                for leaf, message in messages.items()
            }
        return {
            leaf: index.decode(leaf, keys[leaf], message)
            for leaf, message in messages.items()
        }

    return Codec(encode, decode, lambda leaf: shards.names)


def _together(parts: Tree, shards: Shards) -> Tree:
    """Adds up the parts of a message that the devices of a worker hold, bit for bit.

    In each entry all parts but one are 0.
    """

    def add(leaf: jax.Array) -> jax.Array:
        width = leaf.dtype.itemsize * 8
        bits = lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{width}"))
        return lax.bitcast_convert_type(lax.psum(bits, shards.names), leaf.dtype)

    return jax.tree.map(add, parts)


def _decoded(
    values: Compressor, messages: Sparse, like: jax.ShapeDtypeStruct, d: int
) -> Sparse:
    """Decodes the values and the indices of each message; `like` is of its values."""
    return lax.map(lambda message: decode_sparse(values, message, like, d), messages)


def blockwise_shards(
    compressor: Compressor, likes: dict[int, jax.ShapeDtypeStruct], shards: Shards
) -> Codec:
    """Each device encodes its shard by itself; the first of those that hold it sends.

    `likes` are those of the shards.
    """

    def own_key(leaf: int, key: jax.Array) -> jax.Array:
        return jax.random.fold_in(key, lax.axis_index(shards.axes_of(leaf)))

    def encode(keys, vectors):
        messages, lost = {}, {}
        for leaf, x in vectors.items():
            encode_shard = encode_vector(compressor, likes[leaf])
            own, lost[leaf] = encode_shard(own_key(leaf, keys[leaf]), x)
            messages[leaf] = shards.of_first(own, shards.copied_over(leaf))
        return messages, lost

    def decode(keys, messages):
        return {
            leaf: decode_vector(compressor, likes[leaf])(
                own_key(leaf, keys[leaf]), message
            )
            for leaf, message in messages.items()
        }

    return Codec(encode, decode, shards.copied_over)


def encode_vector(compressor: Compressor, like: jax.ShapeDtypeStruct) -> Callable:
    """`(key, x[d]) -> (message, lost[d])`, of an array in the shape of `like`."""

    def encode(key: jax.Array, x: jax.Array) -> tuple[Tree, jax.Array]:
        message, lost = compressor.encode(key, x.reshape(like.shape))
        return message, lost.reshape(-1)

    return encode


def decode_vector(compressor: Compressor, like: jax.ShapeDtypeStruct) -> Callable:
    """`(key, messages) -> x[d]`, of an array like `like`."""
    return lambda key, messages: compressor.decode(key, messages, like).reshape(-1)
