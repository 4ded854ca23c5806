"""The largest entries of each of several parts of one vector, on CPUs.

Parts from which many entries are kept are searched together, whatever their sizes: a
search is many kernels, and most of what a selection takes to compile.
"""

from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gmc_jax.compressors._ranks import ROW
from gmc_jax.compressors._rows import in_words, places_in_rows
from gmc_jax.compressors._selection import FEW, largest, magnitude_bits

# By how much rows may grow that are padded to one length, to be searched together.
PADDED = 1.25


class Parts(NamedTuple):
    """Parts of a vector, one after another, that are alike.

    Attributes:
      start: where the first of them starts.
      number: how many there are.
      size: how many entries each has.
      kept: how many of these are wanted.
    """

    start: int
    number: int
    size: int
    kept: int

    def rows(self, x: jax.Array) -> jax.Array:
        """These parts of x [n], [number, size]."""
        end = self.start + self.number * self.size
        return x[self.start : end].reshape(self.number, self.size)


@partial(jax.jit, static_argnames="parts")
def largest_in_parts(x: jax.Array, parts: tuple[Parts, ...]) -> jax.Array:
    """Returns the indices of the largest magnitudes in each part of x [n].

    Args:
      x: the vector, [n]; n is below 2^30. No part is as long as the shortest vector
        that blocks pay for (`CPU.shortest`).
      parts: in order.

    Returns:
      int32, ascending. Ties go to the lowest index.
    """
    together = [one for one in parts if one.kept > FEW]
    found = {one: _of_alike(x, one) for one in parts if one not in together}
    for some in _of_similar_size(together):
        found |= _searched_together(x, some)
    return jnp.concatenate([found[one] for one in parts])


def _of_alike(x: jax.Array, parts: Parts) -> jax.Array:
    columns = jax.vmap(partial(largest, s=parts.kept))(parts.rows(x))
    first = jnp.arange(parts.number, dtype=jnp.int32) * parts.size + parts.start
    return (first[:, None] + columns).reshape(-1)


def _of_similar_size(parts: Sequence[Parts]) -> list[list[Parts]]:
    """Groups parts, the longest first, so that padding adds a quarter at most."""
    groups: list[list[Parts]] = []
    for one in sorted(parts, key=lambda one: one.size, reverse=True):
        group = [*(groups[-1] if groups else []), one]
        entries = sum(some.number * some.size for some in group)
        padded = sum(some.number for some in group) * group[0].size
        if padded <= PADDED * entries and groups:
            groups[-1] = group
        else:
            groups.append([one])
    return groups


def _searched_together(x: jax.Array, parts: Sequence[Parts]) -> dict[Parts, jax.Array]:
    """As the rows of one matrix, padded to the length of the longest."""
    words = max(-(-one.size // ROW) for one in parts)
    longest = words * ROW
    bits = [in_words(magnitude_bits(one.rows(x)), words) for one in parts]
    kept = np.concatenate([np.full(one.number, one.kept, np.int32) for one in parts])
    found = places_in_rows(jnp.concatenate(bits), jnp.asarray(kept), int(kept.sum()))
    ends = list(accumulate(one.number * one.kept for one in parts))
    row, result = 0, {}
    for one, places in zip(parts, jnp.split(found, ends[:-1]), strict=True):
        places = places.reshape(one.number, one.kept)
        own = jnp.arange(one.number, dtype=jnp.int32)[:, None]
        shift = own * (one.size - longest) + (one.start - row * longest)
        result[one] = (places + shift).reshape(-1)
        row += one.number
    return result
