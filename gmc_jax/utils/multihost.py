"""Lets several processes share a decision, and divide work among them."""

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
"""A value that JSON can represent."""

Decision = TypeVar("Decision")


def on_first_process(decide: Callable[[], Decision]) -> Decision:
    """Calls a function on the first process, and returns its result on all.

    All processes must call it together. If `decide` raises an OSError or a ValueError,
    all of them raise an error.

    Args:
      decide: called by the first process alone. JSON must represent its result. Over
        several processes a tuple in it becomes a list.

    Returns:
      The result of `decide`.

    Raises:
      OSError: if `decide` raised it, and there is one process only.
      ValueError: if `decide` raised it; over several processes also in the place of an
        OSError.
    """
    if jax.process_count() == 1:
        return decide()
    message = {}
    if jax.process_index() == 0:
        try:
            message = {"result": decide()}
        except (OSError, ValueError) as error:
            message = {"error": str(error)}
    text = np.frombuffer(json.dumps(message).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(text.size)))
    padded = np.zeros(size, np.uint8)
    padded[: min(size, text.size)] = text[:size]
    received = np.asarray(multihost_utils.broadcast_one_to_all(padded), np.uint8)
    message = json.loads(received.tobytes())
    if "error" in message:
        raise ValueError(message["error"])
    return message["result"]


def map_over_processes(work: Callable[[str], int], items: Sequence[str]) -> list[int]:
    """Maps items to numbers; the processes divide the items among them.

    All processes must call it together, with the same items.

    Args:
      work: maps an item to a whole number of less than 62 bits.
      items: the items; one process maps each of them.

    Returns:
      The numbers of all items, in their order, on every process.
    """
    first, processes = jax.process_index(), jax.process_count()
    numbers = [0] * len(items)
    for place in range(first, len(items), processes):
        numbers[place] = work(items[place])
    if processes > 1 and items:
        # In two halves, since JAX has 64-bit integers only if they are enabled.
        halves = np.array([divmod(number, 2**31) for number in numbers], np.int32)
        total = np.asarray(multihost_utils.process_allgather(halves)).sum(axis=0)
        numbers = [int(high) * 2**31 + int(low) for high, low in total]
    return numbers


def fetch(tree: Tree) -> Tree:
    """Copies a tree to NumPy arrays, whole in every process.

    An array may be sharded over the devices of several processes, as metrics are. No
    process can read such an array alone, so all processes must call this together.

    Args:
      tree: arrays of any sharding.

    Returns:
      The tree with NumPy arrays; typed random keys are replaced by their data.
    """

    def read(leaf: jax.Array) -> np.ndarray:
        leaf = without_key_types(leaf)
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            if leaf.is_fully_replicated:
                return np.asarray(leaf.addressable_data(0))
            return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
        return np.asarray(leaf)

    return jax.tree.map(read, tree)
