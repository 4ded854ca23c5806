"""All leaves of a tree in one vector, each of which sends its own largest entries.

Stacks of leaves alike are many small programs: each stack is encoded and decoded by
itself. Here the selection alone is done for each size of leaf, and what follows once.
So it compiles faster on CPUs, which counts where several channels share a conditional.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from gmc_jax.channels.sharded.shard_codecs import Codec
from gmc_jax.channels.sharded.shards import Shards, shards_of
from gmc_jax.channels.sharded.stacks import Vectors, alike
from gmc_jax.compressors._parts import Parts, largest_in_parts
from gmc_jax.compressors._selection import CPU
from gmc_jax.compressors._sparse import extract, scatter_sum
from gmc_jax.core import Compressor, Largest, Sparse, Tree
from gmc_jax.utils.vectors import to_vectors

WHOLE = -1
"""The key of the vector of all leaves, in the place of the index of a leaf."""


def sends_largest(compressor: Compressor) -> bool:
    """Whether a compressor sends the largest entries, always all of them, as floats."""
    selects = compressor.selects
    return isinstance(selects, Largest) and not selects.level and selects.values is None


def can_join(tree: Tree) -> bool:
    """Whether leaves that differ can be one vector, and padded, with int32 indices."""
    filled = [leaf for leaf in jax.tree.leaves(tree) if jnp.size(leaf)]
    return (
        not shards_of(tree).axes
        and len({jnp.result_type(leaf) for leaf in filled}) == 1
        and len({jnp.shape(leaf) for leaf in filled}) > 1
        and sum(map(jnp.size, filled)) < 2**30
        # Of longer leaves a step takes longer than with stacks.
        and max(map(jnp.size, filled)) < CPU.shortest
    )


def joined_vectors(
    shards: Shards, tree: Tree, step: jax.Array
) -> tuple[Vectors, Callable[[Vectors], Tree]]:
    """Joins the leaves of a tree that can be joined, those alike side by side.

    Returns:
      What `stacked_vectors` returns, with a vector under `WHOLE` and no other.
    """
    leaves, treedef = jax.tree.flatten(tree)
    order = [leaf for group in alike(shards, tree, True) for leaf in group]
    vectors, restore = to_vectors([leaves[leaf] for leaf in order], False, step)

    def restored(vectors: Vectors) -> Tree:
        parts = dict(zip(order, restore({0: vectors[WHOLE]}), strict=True))
        return treedef.unflatten(parts.get(leaf, x) for leaf, x in enumerate(leaves))

    return {WHOLE: vectors[0]}, restored


def joined_codec(compressor: Compressor, shards: Shards, tree: Tree) -> Codec:
    """The codec of what `joined_vectors` returns, for what `sends_largest`."""
    selects = compressor.selects
    assert isinstance(selects, Largest)
    leaves, parts, size = jax.tree.leaves(tree), [], 0
    for group in alike(shards, tree, True):
        each = math.prod(jnp.shape(leaves[group[0]]))
        parts.append(Parts(size, len(group), each, selects.num_kept(each)))
        size += len(group) * each

    def encode(keys, vectors):
        del keys
        x = vectors[WHOLE]
        indices = largest_in_parts(x, tuple(parts))
        # Always true. Otherwise XLA copies what a conditional is given, to write to the
        # copy, before it selects, and keeps both.
        x = jnp.where(indices[0] >= 0, x, jnp.zeros_like(x))
        message, lost = _extract(x, indices)
        return {WHOLE: message}, {WHOLE: lost}

    def decode(keys, messages):
        return {WHOLE: scatter_sum(keys, messages[WHOLE], size, ascending=True)}

    return Codec(encode, decode, lambda leaf: ())


@custom_vmap
def _extract(x: jax.Array, indices: jax.Array) -> tuple[Sparse, jax.Array]:
    """Moves the entries at indices below d out of x [d] into a message."""
    return extract(x, indices, ascending=True)


@_extract.def_vmap
def _(
    size: int, batched: list[bool], x: jax.Array, indices: jax.Array
) -> tuple[Tree, Tree]:
    """One long vector: XLA would write the indices twice, with the row beside each."""
    if all(batched) and x.size < 2**31:
        start = x.shape[1] * jnp.arange(size, dtype=jnp.int32)[:, None]
        message, lost = _extract(x.reshape(-1), (start + indices).reshape(-1))
        message = Sparse(message.values.reshape(indices.shape), indices)
        rows = message, lost.reshape(x.shape)
    else:
        axes = [0 if is_batched else None for is_batched in batched]
        rows = jax.vmap(partial(extract, ascending=True), axes)(x, indices)
    return rows, jax.tree.map(lambda _: True, rows)
