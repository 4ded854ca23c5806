"""Checks that the replicas of an array are the same."""

from __future__ import annotations

import zlib

import jax
import numpy as np
from jax.experimental import multihost_utils

from gmc_jax.core import Tree
from gmc_jax.utils.prng_keys import without_key_types


def assert_replicated(tree: Tree) -> None:
    """Checks that replicated arrays have the same bits on every device.

    It copies every replica to the host, so it is meant for tests and debugging. Arrays
    on one device, and shards that only one device holds, have no replica and pass.
    Over several processes, all processes must call it together.

    Args:
      tree: arrays of any sharding, such as the state of training.

    Raises:
      AssertionError: if replicas differ. It names the leaves and the devices.
    """
    errors = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not isinstance(leaf, jax.Array):
            continue
        leaf = without_key_types(leaf)
        seen: dict[str, tuple[bytes, object]] = {}
        for shard in leaf.addressable_shards:
            bits = np.asarray(shard.data).tobytes()
            first, device = seen.setdefault(str(shard.index), (bits, shard.device))
            if bits != first:
                errors.append(
                    f"`{jax.tree_util.keystr(path) or 'tree'}` has other bits on "
                    f"{shard.device} than on {device}"
                )
                break
        if jax.process_count() > 1 and leaf.is_fully_replicated:
            checksum = zlib.crc32(np.asarray(leaf.addressable_data(0)).tobytes())
            checksums = multihost_utils.process_allgather(np.uint32(checksum))
            if len(set(checksums.tolist())) > 1:
                errors.append(
                    f"`{jax.tree_util.keystr(path) or 'tree'}` has other bits in some "
                    "processes than in others"
                )
    if errors:
        raise AssertionError("replicas differ: " + "; ".join(errors))
