"""The messages of a worker as it keeps them, however many devices it has.

Where a worker has several devices, each of them holds a part of a message, and leaves
alike that are split are not stacked. What a worker keeps between two calls depends on
neither: a state is made before it is known how the parameters are split.
"""

from functools import partial
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from gmc_jax.channels.sharded.shard_codecs import Codec
from gmc_jax.channels.sharded.shards import Shards, unsplit
from gmc_jax.channels.sharded.stacks import alike, split_vectors
from gmc_jax.core import Tree

Groups: TypeAlias = list[list[int]]
"""The leaves whose vectors are stacked together, or single ones."""


def whole_messages(
    coder: Codec, shards: Shards, tree: Tree, per_leaf: bool, messages: dict[int, Tree]
) -> tuple[Tree, ...]:
    """Turns the messages of a device into those of its worker.

    Args:
      coder: what encoded the messages.
      shards: how the tree is split over the devices of a worker.
      tree: this device's shards.
      per_leaf: whether each leaf is a vector of its own.
      messages: of the device, by the index of the leaf.

    Returns:
      The messages of a worker with one device, in the order of their leaves.
    """
    if shards.axes:
        added = coder.run_collectives(
            lambda axes: partial(lax.psum, axis_name=axes), messages
        )
        here, kept = _groups(shards, tree, per_leaf)
        messages = _regrouped(added, here, kept)
    return tuple(messages[leaf] for leaf in sorted(messages))


def device_messages(
    coder: Codec, shards: Shards, tree: Tree, per_leaf: bool, kept: tuple[Tree, ...]
) -> dict[int, Tree]:
    """Turns the messages of a worker into those of a device, which `coder` decodes."""
    here, whole = _groups(shards, tree, per_leaf)
    messages = dict(zip(sorted(group[0] for group in whole), kept, strict=True))
    if not shards.axes:
        return messages
    return {
        leaf: shards.of_first(message, coder.add_up(leaf))
        for leaf, message in _regrouped(messages, whole, here).items()
    }


def _groups(shards: Shards, tree: Tree, per_leaf: bool) -> tuple[Groups, Groups]:
    """How vectors are grouped on this device, and on a worker with one device."""
    leaves = shards.whole(tree)
    if not any(leaf.size for leaf in leaves):
        return [], []
    if not per_leaf:
        return [[0]], [[0]]
    split = [[leaf] for leaf in split_vectors(shards, per_leaf) if leaves[leaf].size]
    return alike(shards, tree, per_leaf) + split, alike(
        unsplit(leaves), leaves, per_leaf
    )


def _regrouped(
    messages: dict[int, Tree], now: Groups, wanted: Groups
) -> dict[int, Tree]:
    """Stacks the messages of some groups as other groups are stacked."""
    single: dict[int, Tree] = {}
    for group in now:
        message = messages[group[0]]
        for row, leaf in enumerate(group):
            one = jax.tree.map(lambda stack, row=row: stack[row], message)
            single[leaf] = one if len(group) > 1 else message
    return {
        group[0]: jax.tree.map(lambda *rows: jnp.stack(rows), *map(single.get, group))
        if len(group) > 1
        else single[group[0]]
        for group in wanted
    }
