"""Encoding vectors, and decoding what arrives: on one device, or in parts on several.

Of a vector in parts a device looks for what to send among its own entries. Which of the
finds are the largest of all is settled by counting over the worker's devices, bit by
bit of a magnitude and then, among equals, of a place: until then nothing but counts
crosses between them.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from gmc_jax.channels.sharded.context import partition
from gmc_jax.channels.sharded.global_top_k import Candidates, global_top_k
from gmc_jax.channels.sharded.shards import Shards
from gmc_jax.compressors._selection import (
    extract,
    largest,
    magnitude_bits,
    scatter_sum,
)
from gmc_jax.core import Compressor, Drawn, Largest, Sparse, Tree

Vectors: TypeAlias = dict[int, jax.Array]
"""By the index of their leaf, as `to_vectors` has them."""


class Coding(NamedTuple):
    """A compressor for the vectors of a tree, on one device.

    Attributes:
      encode: `(keys, vectors) -> (messages, lost)`. In parts these are shares of the
        messages, which add up to them over the worker's devices.
      decode: `(keys, messages) -> sums`, of whole messages, stacked.
    """

    encode: Callable[[Vectors, Vectors], tuple[dict[int, Tree], Vectors]]
    decode: Callable[[Vectors, dict[int, Tree]], Vectors]


class ShardIndex(NamedTuple):
    """Which entries of vectors a device holds.

    Attributes:
      sizes: of the whole vectors.
      numbers: the places of its entries in the whole vectors, ascending.
      owned: whether no device before this one holds them as well.
    """

    sizes: dict[int, int]
    numbers: Vectors
    owned: Vectors

    def places(self, leaf: int, wanted: jax.Array) -> jax.Array:
        """Where in its part numbers are; the size of the part where they are not."""
        own = self.numbers[leaf]
        places = jnp.searchsorted(own, wanted).astype(jnp.int32)
        found = own.at[places].get(mode="fill", fill_value=-1) == wanted
        return jnp.where(found, places, own.size)


def coding(compressor: Compressor, sizes: dict[int, int]) -> Coding:
    """The coding of vectors of these sizes, each whole on every device."""

    def encode(keys, vectors):
        messages, lost = {}, {}
        for leaf, x in vectors.items():
            messages[leaf], lost[leaf] = compressor.encode(keys[leaf], x)
        return messages, lost

    def decode(keys, messages):
        return {
            leaf: compressor.decode(keys[leaf], message, sizes[leaf])
            for leaf, message in messages.items()
        }

    return Coding(encode, decode)


def check_in_parts(
    compressor: Compressor, parts: Shards, per_leaf: bool, caller: str
) -> None:
    """Raises ValueError unless all vectors in parts can be encoded so."""
    for leaf in _split(parts, per_leaf):
        if compressor.selects is None:
            place = leaf if per_leaf else _split(parts, True)[0]
            raise ValueError(
                f"`{caller}` is to compress a leaf of shape {parts.shapes[place]} that "
                f"is split inside a worker by {partition(parts.specs[place])}, and "
                "its `compressor` needs the whole vector in one place: every device "
                "would gather it. Use `top_k`, `threshold` or `random_block`, which "
                "select part by part, or `exact()`, which loses nothing."
            )


def coding_in_parts(
    compressor: Compressor, parts: Shards, tree: Tree, per_leaf: bool
) -> Coding:
    """The coding of vectors some of which lie in parts.

    Args:
      compressor: one that passed `check_in_parts`.
      parts: how the tree lies on the worker's devices.
      tree: this device's part of it.
      per_leaf: whether each leaf is a vector, or the tree.
    """
    split = _split(parts, per_leaf)
    selects = compressor.selects if split else None
    whole_sizes = [math.prod(shape) for shape in parts.shapes]
    sizes = dict(enumerate(whole_sizes)) if per_leaf else {0: sum(whole_sizes)}
    held = ShardIndex(sizes, parts.numbers(tree, per_leaf), parts.owned(tree, per_leaf))
    whole = coding(compressor, sizes)
    if isinstance(selects, Drawn):
        chosen = _drawn(selects, held)
    elif isinstance(selects, Largest):
        chosen = _largest(selects, held, parts)
    else:
        chosen = whole

    def both(vectors: dict[int, Tree]) -> tuple[dict[int, Tree], dict[int, Tree]]:
        in_parts = {leaf: x for leaf, x in vectors.items() if leaf in split}
        rest = {leaf: x for leaf, x in vectors.items() if leaf not in split}
        return in_parts, rest

    def encode(keys, vectors):
        in_parts, rest = both(vectors)
        shares, lost = chosen.encode(keys, in_parts)
        messages, left = whole.encode(keys, rest)
        # All devices of the worker hold the same; one of them gives it.
        first = parts.is_first()
        messages = jax.tree.map(
            lambda leaf: jnp.where(first, leaf, jnp.zeros_like(leaf)), messages
        )
        return shares | messages, lost | left

    def decode(keys, messages):
        in_parts, rest = both(messages)
        return chosen.decode(keys, in_parts) | whole.decode(keys, rest)

    return Coding(encode, decode)


def _split(parts: Shards, per_leaf: bool) -> list[int]:
    """The vectors that lie in parts."""
    leaves = [leaf for leaf, spec in enumerate(parts.specs) if any(spec)]
    return leaves if per_leaf else [0] if leaves else []


def _drawn(selects: Drawn, held: ShardIndex) -> Coding:
    """Of a shared draw every device takes the entries that it holds."""

    def drawn(leaf: int, key: jax.Array) -> jax.Array:
        return held.places(leaf, selects.places(key, held.sizes[leaf]))

    def encode(keys, vectors):
        shares, lost = {}, {}
        for leaf, x in vectors.items():
            places = drawn(leaf, keys[leaf])
            taken, lost[leaf] = extract(x, places)
            owned = held.owned[leaf].at[places].get(mode="fill", fill_value=False)
            shares[leaf] = jnp.where(owned, taken.values, 0)
        return shares, lost

    def decode(keys, messages):
        sums = {}
        for leaf, values in messages.items():
            places = jnp.broadcast_to(drawn(leaf, keys[leaf]), values.shape)
            sums[leaf] = scatter_sum(
                keys[leaf], Sparse(values, places), held.numbers[leaf].size
            )
        return sums

    return Coding(encode, decode)


def _largest(selects: Largest, held: ShardIndex, parts: Shards) -> Coding:
    """Of the largest entries that a device finds, it takes those that are of all."""

    def look(leaf: int, x: jax.Array) -> tuple[jax.Array, Candidates]:
        kept = selects.kept(held.sizes[leaf])
        bits = magnitude_bits(x)
        least = magnitude_bits(jnp.asarray(selects.level, x.dtype))
        places = largest(bits, min(kept, x.size))
        found = jnp.where(bits[places] >= least, bits[places], -1)
        numbers, owned = held.numbers[leaf][places], held.owned[leaf][places]
        return places, Candidates(kept, found, numbers, owned)

    def encode(keys, vectors):
        del keys
        looked = [look(leaf, x) for leaf, x in vectors.items()]
        settled = global_top_k([finds for _, finds in looked], parts.names)
        shares, lost = {}, {}
        for (leaf, x), (places, finds), (chosen, slots, used) in zip(
            vectors.items(), looked, settled, strict=True
        ):
            taken, lost[leaf] = extract(x, jnp.where(chosen, places, x.size))
            unused = parts.is_first() & (jnp.arange(finds.kept) >= used)
            nothing = Sparse(
                jnp.zeros(finds.kept, x.dtype),
                jnp.where(unused, held.sizes[leaf], 0).astype(jnp.int32),
            )
            shares[leaf] = jax.tree.map(
                lambda empty, own, slots=slots: empty.at[slots].set(
                    own, mode="drop", unique_indices=True
                ),
                nothing,
                Sparse(taken.values, finds.numbers),
            )
        return shares, lost

    def decode(keys, messages):
        return {
            leaf: scatter_sum(
                keys[leaf],
                Sparse(values, held.places(leaf, indices)),
                held.numbers[leaf].size,
            )
            for leaf, (values, indices) in messages.items()
        }

    return Coding(encode, decode)
