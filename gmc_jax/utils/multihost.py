"""Several processes that must decide alike, and share work."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from gmc_jax.core import Tree
from gmc_jax.utils.prng_keys import without_key_types

Json: TypeAlias = (
    bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None
)
"""What JSON can say."""

Decision = TypeVar("Decision")


def on_first_process(decide: Callable[[], Decision]) -> Decision:
    """What the first process decides, in all of them; so they fail together, too.

    All processes must call it together.

    Args:
      decide: called by the first process alone. It returns what JSON can say, of
        lists and not of tuples. What it raises, an OSError or a ValueError, is raised
        in all processes.

    Returns:
      What it returned.

    Raises:
      ValueError: if `decide` raised it, or an OSError over several processes.
    """
    if jax.process_count() == 1:
        return decide()
    said = {}
    if jax.process_index() == 0:
        try:
            said = {"decided": decide()}
        except (OSError, ValueError) as error:
            said = {"error": str(error)}
    text = np.frombuffer(json.dumps(said).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(text.size)))
    padded = np.zeros(size, np.uint8)
    padded[: min(size, text.size)] = text[:size]
    heard = np.asarray(multihost_utils.broadcast_one_to_all(padded), np.uint8)
    said = json.loads(heard.tobytes())
    if "error" in said:
        raise ValueError(said["error"])
    return said["decided"]


def shared(work: Callable[[str], int], items: Sequence[str]) -> list[int]:
    """A number for each item, each worked out by one process and told to all.

    All processes must call it together, with the same items.

    Args:
      work: from an item to a number, of less than 62 bits.
      items: shared out among the processes.

    Returns:
      The numbers, in the order of the items.
    """
    first, processes = jax.process_index(), jax.process_count()
    numbers = [0] * len(items)
    for place in range(first, len(items), processes):
        numbers[place] = work(items[place])
    if processes > 1 and items:
        # In halves, since JAX has 64 bits only where it is told to.
        halves = np.array([divmod(number, 2**31) for number in numbers], np.int32)
        total = np.asarray(multihost_utils.process_allgather(halves)).sum(axis=0)
        numbers = [int(high) * 2**31 + int(low) for high, low in total]
    return numbers


def fetch(tree: Tree) -> Tree:
    """The arrays of a tree in NumPy, whole, in every process.

    Over several processes an array that is spread over devices, as metrics are, cannot
    be read as it is; all processes must call this together.

    Args:
      tree: arrays of any sharding.

    Returns:
      The same tree of NumPy arrays; typed random keys as their data.
    """

    def read(leaf: jax.Array) -> np.ndarray:
        leaf = without_key_types(leaf)
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            if leaf.is_fully_replicated:
                return np.asarray(leaf.addressable_data(0))
            return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
        return np.asarray(leaf)

    return jax.tree.map(read, tree)
