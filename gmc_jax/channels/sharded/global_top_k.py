"""The largest entries of vectors whose shards lie on several devices."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gmc_jax.compressors._selection import largest_satisfying


class Candidates(NamedTuple):
    """The entries of a vector that a device may have to send.

    Attributes:
      num_kept: how many entries of the whole vector are sent at most.
      bits: [n], magnitudes as integers; -1 for an entry that is not to be sent.
      global_indices: [n] int32, indices in the whole vector, ascending.
      is_owner: [n] bool, whether this device is the first that holds the entry.
    """

    num_kept: int
    bits: jax.Array
    global_indices: jax.Array
    is_owner: jax.Array


class Selection(NamedTuple):
    """Which candidates are sent, and in which slots of the message.

    Attributes:
      is_selected: [n] bool, whether a candidate is among the largest of all devices.
      slots: [n] int32, the slot of a selected candidate on the device that owns it;
        `num_kept` for the other candidates.
      used: how many slots all devices use together.
    """

    is_selected: jax.Array
    slots: jax.Array
    used: jax.Array


def global_top_k(
    candidates: list[Candidates], axes: tuple[str, ...]
) -> list[Selection]:
    """Selects the largest candidates of all devices; ties go to the lowest index.

    The devices exchange counts alone. A bisection over the bits of a magnitude finds
    the smallest magnitude that is sent. Of the entries of this magnitude only the first
    may fit, and a bisection over the bits of an index finds the last that does. Each
    bisection step is one all-reduce of a count for each vector. One all-gather of
    counts then assigns the slots.

    Args:
      candidates: those of this device, for each vector.
      axes: the axes of the mesh inside a worker.
    """
    num_kept = jnp.array([own.num_kept for own in candidates], jnp.int32)
    widest = jnp.result_type(*[own.bits.dtype for own in candidates])
    bits = [own.bits.astype(widest) for own in candidates]

    def count_here(masks: list[jax.Array]) -> jax.Array:
        counts = [
            jnp.sum(mask & own.is_owner, dtype=jnp.int32)
            for mask, own in zip(masks, candidates, strict=True)
        ]
        return jnp.stack(counts)

    def count(masks: list[jax.Array]) -> jax.Array:
        return lax.psum(count_here(masks), axes)

    def enough(levels: jax.Array) -> jax.Array:
        masks = [b >= level for b, level in zip(bits, levels, strict=True)]
        return count(masks) >= num_kept

    levels = largest_satisfying(enough, jnp.zeros(len(candidates), widest))
    above = [b > level for b, level in zip(bits, levels, strict=True)]
    equal = [b == level for b, level in zip(bits, levels, strict=True)]
    room = num_kept - count(above)

    def too_few(ends: jax.Array) -> jax.Array:
        masks = [
            mask & (own.global_indices < end)
            for mask, own, end in zip(equal, candidates, ends, strict=True)
        ]
        return count(masks) < room

    ends = largest_satisfying(too_few, jnp.zeros(len(candidates), jnp.int32))
    selected = [
        more | (mask & (own.global_indices <= end))
        for more, mask, own, end in zip(above, equal, candidates, ends, strict=True)
    ]
    counts = lax.all_gather(count_here(selected), axes)
    before = jnp.arange(counts.shape[0]) < lax.axis_index(axes)
    starts = jnp.sum(jnp.where(before[:, None], counts, 0), axis=0)
    selections = []
    for vector, (mask, own) in enumerate(zip(selected, candidates, strict=True)):
        mine = mask & own.is_owner
        slots = starts[vector] + jnp.cumsum(mine, dtype=jnp.int32) - 1
        slots = jnp.where(mine, slots, own.num_kept)
        selections.append(Selection(mask, slots, jnp.sum(counts[:, vector])))
    return selections
