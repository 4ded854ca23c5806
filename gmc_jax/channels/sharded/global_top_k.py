"""Settling between the devices of a worker which of their finds are the largest."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gmc_jax.compressors._selection import largest_satisfying


class Candidates(NamedTuple):
    """The entries of a vector that a device might have to send.

    Attributes:
      kept: how many entries of the whole vector are sent at most.
      bits: magnitudes as integers, -1 of what is not to be sent.
      numbers: the places in the whole vector, int32, ascending.
      owned: whether no device before this one has found the entry as well.
    """

    kept: int
    bits: jax.Array
    numbers: jax.Array
    owned: jax.Array


class Selection(NamedTuple):
    """Which finds are sent, and where in the message.

    Attributes:
      chosen: whether a find is among the largest of all devices.
      slots: the place in the message of what is chosen and owned; of the rest `kept`.
      used: how many slots are used, by all devices.
    """

    chosen: jax.Array
    slots: jax.Array
    used: jax.Array


def global_top_k(finds: list[Candidates], axes: tuple[str, ...]) -> list[Selection]:
    """Which of the finds of all devices are the largest; ties to the lowest number.

    Counts alone cross, of all vectors at once: one for each bit of a magnitude and of a
    number, and one in the end for the slots.

    Args:
      finds: of several vectors.
      axes: whose devices have parts of them.
    """
    kept = jnp.array([found.kept for found in finds], jnp.int32)
    widest = jnp.result_type(*[found.bits.dtype for found in finds])
    bits = [found.bits.astype(widest) for found in finds]

    def here(masks: list[jax.Array]) -> jax.Array:
        counts = [
            jnp.sum(mask & found.owned, dtype=jnp.int32)
            for mask, found in zip(masks, finds, strict=True)
        ]
        return jnp.stack(counts)

    def count(masks: list[jax.Array]) -> jax.Array:
        return lax.psum(here(masks), axes)

    def enough(levels: jax.Array) -> jax.Array:
        return (
            count([b >= level for b, level in zip(bits, levels, strict=True)]) >= kept
        )

    levels = largest_satisfying(enough, jnp.zeros(len(finds), widest))
    above = [b > level for b, level in zip(bits, levels, strict=True)]
    equal = [b == level for b, level in zip(bits, levels, strict=True)]
    room = kept - count(above)

    def too_few(ends: jax.Array) -> jax.Array:
        return (
            count(
                [
                    mask & (found.numbers < end)
                    for mask, found, end in zip(equal, finds, ends, strict=True)
                ]
            )
            < room
        )

    ends = largest_satisfying(too_few, jnp.zeros(len(finds), jnp.int32))
    chosen = [
        more | (mask & (found.numbers <= end))
        for more, mask, found, end in zip(above, equal, finds, ends, strict=True)
    ]
    counts = lax.all_gather(here(chosen), axes)
    before = jnp.arange(counts.shape[0]) < lax.axis_index(axes)
    starts = jnp.sum(jnp.where(before[:, None], counts, 0), axis=0)
    settled = []
    for place, (mask, found) in enumerate(zip(chosen, finds, strict=True)):
        mine = mask & found.owned
        slots = starts[place] + jnp.cumsum(mine, dtype=jnp.int32) - 1
        slots = jnp.where(mine, slots, found.kept)
        settled.append(Selection(mask, slots, jnp.sum(counts[:, place])))
    return settled
