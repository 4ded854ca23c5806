"""Encoding and decoding the vectors of a tree, whole or split over devices.

Each device selects candidates from its own shard. The devices of a worker then agree on
the largest candidates (`global_top_k`), or take the entries of a shared draw that they
hold.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from gmc_jax.channels.sharded.context import partition
from gmc_jax.channels.sharded.global_top_k import Candidates, global_top_k
from gmc_jax.channels.sharded.shards import Shards
from gmc_jax.compressors._selection import largest, magnitude_bits
from gmc_jax.compressors._sparse import extract, scatter_sum
from gmc_jax.core import Compressor, Drawn, Largest, Sparse, Tree
from gmc_jax.utils.vectors import to_vectors, unstack

Vectors: TypeAlias = dict[int, jax.Array]
"""Vectors by the index of their leaf, as `to_vectors` makes them.

Vectors that are alike may be stacked, under the index of the first of them.
"""


class Codec(NamedTuple):
    """A compressor for the vectors of a tree, on one device.

    Attributes:
      encode: `(keys, vectors) -> (messages, lost)`; the keys are an array by the index
        of the leaf. Where a worker has several devices, the messages of all of them add
        up to the message of the worker.
      decode: `(keys, messages) -> sums`, from whole messages, which are stacked on a
        leading axis.
    """

    encode: Callable[[jax.Array, Vectors], tuple[dict[int, Tree], Vectors]]
    decode: Callable[[jax.Array, dict[int, Tree]], Vectors]


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


def check_selects(
    compressor: Compressor, shards: Shards, per_leaf: bool, caller: str
) -> None:
    """Raises ValueError unless the compressor can encode all split vectors."""
    for leaf in _split(shards, per_leaf):
        if compressor.selects is None:
            place = leaf if per_leaf else _split(shards, True)[0]
            raise ValueError(
                f"`compressor` of `{caller}` must select entries shard by shard, since "
                f"a leaf of shape {shards.shapes[place]} is split inside a worker by "
                f"{partition(shards.specs[place])}. This one needs the whole vector, "
                "which every device would gather. Use `top_k`, `threshold`, "
                "`random_k` or `random_block`, or the channel `exact()`, which loses "
                "nothing."
            )


def stacked_vectors(
    shards: Shards, tree: Tree, per_leaf: bool, step: jax.Array
) -> tuple[Vectors, Callable[[Vectors], Tree]]:
    """Flattens a tree as `to_vectors` does, and stacks the vectors that are alike.

    Returns:
      The vectors and stacks. And a function that restores the tree from them.
    """
    vectors, restore = to_vectors(tree, per_leaf, step)
    groups = _alike(shards, tree, per_leaf)
    # `jnp.stack` of simulated workers would be transposed, with a copy of all of it.
    stacks = {
        group[0]: jnp.concatenate([vectors.pop(leaf) for leaf in group]).reshape(
            len(group), -1
        )
        for group in groups
        if len(group) > 1
    }

    def restored(vectors: Vectors) -> Tree:
        single = dict(vectors)
        for group in groups:
            if len(group) > 1:
                rows = unstack(vectors[group[0]], step)
                single.update(zip(group, rows, strict=True))
        return restore(single)

    return vectors | stacks, restored


def codec(compressor: Compressor, shards: Shards, tree: Tree, per_leaf: bool) -> Codec:
    """The codec of a tree's vectors, as `stacked_vectors` makes them.

    Args:
      compressor: one that passed `check_selects`.
      shards: how the tree is split over the devices of a worker.
      tree: this device's shards.
      per_leaf: whether each leaf is a vector, or the whole tree.
    """
    leaf_sizes = [math.prod(shape) for shape in shards.shapes]
    sizes = dict(enumerate(leaf_sizes)) if per_leaf else {0: sum(leaf_sizes)}
    split, selects = _split(shards, per_leaf), compressor.selects
    groups = {group[0]: group for group in _alike(shards, tree, per_leaf)}
    whole = _whole(compressor, sizes, groups)
    if not shards.axes:
        return whole
    sharded = whole
    if split and selects is not None:
        index = ShardIndex(
            sizes,
            shards.global_indices(tree, per_leaf),
            shards.is_owner(tree, per_leaf),
        )
        if isinstance(selects, Drawn):
            sharded = _drawn(selects, index)
        else:
            sharded = _largest(selects, index, shards)

    def parted(vectors: dict[int, Tree]) -> tuple[dict[int, Tree], dict[int, Tree]]:
        on_shards = {leaf: x for leaf, x in vectors.items() if leaf in split}
        rest = {leaf: x for leaf, x in vectors.items() if leaf not in split}
        return on_shards, rest

    def encode(keys, vectors):
        on_shards, rest = parted(vectors)
        sharded_messages, sharded_lost = sharded.encode(keys, on_shards)
        messages, lost = whole.encode(keys, rest)
        # All devices of the worker hold the same message; the first one sends it.
        first = shards.is_first()
        messages = jax.tree.map(
            lambda leaf: jnp.where(first, leaf, jnp.zeros_like(leaf)), messages
        )
        return sharded_messages | messages, sharded_lost | lost

    def decode(keys, messages):
        on_shards, rest = parted(messages)
        return sharded.decode(keys, on_shards) | whole.decode(keys, rest)

    return Codec(encode, decode)


def _split(shards: Shards, per_leaf: bool) -> list[int]:
    """The vectors that are split over devices."""
    leaves = [leaf for leaf, spec in enumerate(shards.specs) if any(spec)]
    return leaves if per_leaf else [0] if leaves else []


def _alike(shards: Shards, tree: Tree, per_leaf: bool) -> list[list[int]]:
    """Groups the vectors that are not split by size and dtype, in order.

    JAX's generators other than threefry draw differently when they are batched. With
    them each vector is a group.
    """
    if not per_leaf:
        return [[0]]
    batches_alike = jax.random.key_impl(jax.random.key(0)) == "threefry2x32"
    split = _split(shards, per_leaf)
    groups: dict[tuple, list[int]] = {}
    for leaf, array in enumerate(map(jnp.asarray, jax.tree.leaves(tree))):
        if array.size and leaf not in split:
            kind = (array.size, array.dtype) if batches_alike else (leaf,)
            groups.setdefault(kind, []).append(leaf)
    return list(groups.values())


def _whole(
    compressor: Compressor, sizes: dict[int, int], groups: dict[int, list[int]]
) -> Codec:
    """The codec of vectors that every device holds whole.

    The vectors of a stack are encoded and decoded together. So their messages are
    stacked too.
    """

    def on_group(leaf: int, function: Callable, in_axes: tuple) -> Callable:
        """Of keys and what they are for: a stack, or a single vector."""
        group = groups[leaf]
        if len(group) == 1:
            return lambda keys, *args: function(keys[leaf], *args)
        batched = jax.vmap(function, in_axes)
        return lambda keys, *args: batched(keys[jnp.array(group)], *args)

    def encode(keys, vectors):
        messages, lost = {}, {}
        for leaf, x in vectors.items():
            encode_group = on_group(leaf, compressor.encode, (0, 0))
            messages[leaf], lost[leaf] = encode_group(keys, x)
        return messages, lost

    def decode(keys, messages):
        sums = {}
        for leaf, message in messages.items():
            decode_group = on_group(leaf, compressor.decode, (0, 1, None))
            sums[leaf] = decode_group(keys, message, sizes[leaf])
        return sums

    return Codec(encode, decode)


def _drawn(selects: Drawn, index: ShardIndex) -> Codec:
    """Each device takes the entries of a shared draw that it holds."""

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
            messages[leaf] = jnp.where(owner, sent.values, 0)
        return messages, lost

    def decode(keys, messages):
        sums = {}
        for leaf, values in messages.items():
            indices = jnp.broadcast_to(drawn(leaf, keys[leaf]), values.shape)
            sums[leaf] = index.decode(leaf, keys[leaf], Sparse(values, indices))
        return sums

    return Codec(encode, decode)


def _largest(selects: Largest, index: ShardIndex, shards: Shards) -> Codec:
    """Each device takes its candidates that are among the largest of all devices."""

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
        del keys
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
        return messages, lost

    def decode(keys, messages):
        return {
            leaf: index.decode(leaf, keys[leaf], message)
            for leaf, message in messages.items()
        }

    return Codec(encode, decode)
