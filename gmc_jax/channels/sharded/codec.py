"""Encoding and decoding the vectors of a tree, whole or split over devices."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from gmc_jax.channels.sharded.joined import WHOLE, joined_codec
from gmc_jax.channels.sharded.shard_codecs import (
    Codec,
    ShardIndex,
    blockwise_shards,
    decode_vector,
    drawn_shards,
    encode_vector,
    largest_of_shards,
)
from gmc_jax.channels.sharded.shards import Shards
from gmc_jax.channels.sharded.stacks import Vectors, alike, split_leaf, split_vectors
from gmc_jax.core import Blockwise, Compressor, Drawn, Tree


def check_selects(
    compressor: Compressor, shards: Shards, per_leaf: bool, caller: str
) -> None:
    """Raises ValueError unless the compressor can encode all split vectors."""
    is_split = split_leaf(shards)
    if is_split is None:
        return
    if compressor.selects is None:
        raise ValueError(
            f"`compressor` of `{caller}` must select entries shard by shard, "
            f"since {is_split}. This one needs the whole vector, which every device "
            "would gather. Use `top_k`, `threshold`, `random_k`, `random_block` or "
            "buckets, as in `integers(8, bucket=512)`, or the channel `exact()`, which "
            "loses nothing."
        )
    if isinstance(compressor.selects, Blockwise) and not per_leaf:
        raise ValueError(
            f"`{caller}` must encode blocks leaf by leaf, since {is_split}. Blocks of "
            "the whole tree would not lie on one device. Pass "
            f"`{caller}(..., per_leaf=True)`."
        )


def codec(
    compressor: Compressor, shards: Shards, tree: Tree, vectors: Vectors, per_leaf: bool
) -> Codec:
    """The codec of a tree's vectors.

    Args:
      compressor: one that passed `check_selects`.
      shards: how the tree is split over the devices of a worker.
      tree: this device's shards.
      vectors: what `stacked_vectors` or `joined_vectors` makes of them.
      per_leaf: whether each leaf is a vector, or the whole tree.
    """
    split, selects = split_vectors(shards, per_leaf), compressor.selects
    if WHOLE in vectors:
        return joined_codec(compressor, shards, tree)
    groups = {group[0]: group for group in alike(shards, tree, per_leaf)}
    leaves = jax.tree.leaves(tree)
    likes = {
        leaf: jax.ShapeDtypeStruct(
            jnp.shape(leaves[leaf]) if per_leaf else x.shape, x.dtype
        )
        for leaf, x in vectors.items()
    }
    whole = _whole(compressor, likes, groups)
    if not shards.axes:
        return whole
    sharded = whole
    if isinstance(selects, Blockwise):
        sharded = blockwise_shards(compressor, likes, shards)
    elif split and selects is not None:
        leaf_sizes = [math.prod(shape) for shape in shards.shapes]
        index = ShardIndex(
            dict(enumerate(leaf_sizes)) if per_leaf else {0: sum(leaf_sizes)},
            shards.global_indices(tree, per_leaf),
            shards.is_owner(tree, per_leaf),
        )
        dtypes = {leaf: like.dtype for leaf, like in likes.items()}
        if isinstance(selects, Drawn):
            sharded = drawn_shards(selects, index, shards, dtypes)
        else:
            sharded = largest_of_shards(selects, index, shards, dtypes)

    def parted(vectors: dict[int, Tree]) -> tuple[dict[int, Tree], dict[int, Tree]]:
        on_shards = {leaf: x for leaf, x in vectors.items() if leaf in split}
        rest = {leaf: x for leaf, x in vectors.items() if leaf not in split}
        return on_shards, rest

    def encode(keys, vectors):
        on_shards, rest = parted(vectors)
        sharded_messages, sharded_lost = sharded.encode(keys, on_shards)
        messages, lost = whole.encode(keys, rest)
        messages = shards.of_first(messages, shards.names)
        return sharded_messages | messages, sharded_lost | lost

    def decode(keys, messages):
        on_shards, rest = parted(messages)
        return sharded.decode(keys, on_shards) | whole.decode(keys, rest)

    def add_up(leaf: int) -> tuple[str, ...]:
        return sharded.add_up(leaf) if leaf in split else shards.names

    return Codec(encode, decode, add_up)


def between_workers(
    collective: Callable[[jax.Array], jax.Array],
    coder: Codec,
    shards: Shards,
    messages: dict[int, Tree],
) -> dict[int, Tree]:
    """Runs a collective between workers on the messages that their devices hold.

    Args:
      collective: from a vector to what is received, behind a leading axis.
      coder: what encoded the messages.
      shards: how the tree is split over the devices of a worker.
      messages: of a device, by the index of the leaf.
    """
    return coder.run_collectives(partial(shards.by_slices, collective), messages)


def _whole(
    compressor: Compressor,
    likes: dict[int, jax.ShapeDtypeStruct],
    groups: dict[int, list[int]],
) -> Codec:
    """The codec of vectors that every device holds whole.

    The vectors of a stack are encoded and decoded together. So their messages are
    stacked too.
    """

    def on_group(leaf: int, function: Callable, axis: int = 0) -> Callable:
        """Of keys and what they are for: a stack along an axis, or a single vector."""
        group = groups[leaf]
        if len(group) == 1:
            return lambda keys, one: function(keys[leaf], one)
        batched = jax.vmap(function, (0, axis))
        return lambda keys, stack: batched(keys[jnp.array(group)], stack)

    def encode(keys, vectors):
        messages, lost = {}, {}
        for leaf, x in vectors.items():
            encode_group = on_group(leaf, encode_vector(compressor, likes[leaf]))
            messages[leaf], lost[leaf] = encode_group(keys, x)
        return messages, lost

    def decode(keys, messages):
        sums = {}
        for leaf, message in messages.items():
            decode_group = on_group(leaf, decode_vector(compressor, likes[leaf]), 1)
            sums[leaf] = decode_group(keys, message)
        return sums

    return Codec(encode, decode, lambda leaf: ())
