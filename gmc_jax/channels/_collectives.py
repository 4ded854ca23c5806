"""Collectives over trees, and the sum over workers."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from gmc_jax.core import Tree

_UNROLLED = 8
"""How many rows are added in a round."""

_TPU_LANES = 128


def run_collective(
    tree: Tree, collective: Callable[[jax.Array], jax.Array], leading: int = 0
) -> Tree:
    """Runs a collective on a tree, once for each dtype in it.

    Floats narrower than 32 bits cross as the integers of their bits, since XLA may
    widen floats in a collective.

    Args:
      tree: of arrays.
      collective: from a vector to what is received: a vector of as many entries,
        perhaps behind leading axes.
      leading: how many leading axes all arrays have in common. The collective gets them
        in front of its vector.

    Returns:
      What is received, in the shapes of the tree (without its leading axes) behind the
      leading axes of what the collective returns.
    """
    leaves, treedef = jax.tree.flatten(tree)
    wires = [_as_integers(leaf) for leaf in leaves]
    received = list(leaves)
    for dtype in dict.fromkeys(wire.dtype for wire in wires):
        places = [place for place, wire in enumerate(wires) if wire.dtype == dtype]
        flat = [
            wires[place].reshape(*wires[place].shape[:leading], -1) for place in places
        ]
        joined = flat[0] if len(flat) == 1 else jnp.concatenate(flat, axis=-1)
        result = collective(joined)
        start = 0
        for place, vectors in zip(places, flat, strict=True):
            leaf = leaves[place]
            part = result[..., start : start + vectors.shape[-1]]
            start += vectors.shape[-1]
            part = part.reshape(*result.shape[:-1], *leaf.shape[leading:])
            if part.dtype != leaf.dtype:
                part = lax.bitcast_convert_type(part, leaf.dtype)
            received[place] = part
    return treedef.unflatten(received)


def sum_over_workers(leaves: list[jax.Array], axis_name: str) -> list[jax.Array]:
    """Sums arrays over the workers of an axis.

    Simulated workers are the rows of one array. They are added one after another, as
    the all-reduce of CPUs adds workers: XLA reduces short columns slowly there.
    """

    @custom_vmap
    def add(index: jax.Array, leaves: list[jax.Array]) -> list[jax.Array]:
        del index
        return lax.psum(leaves, axis_name)

    @add.def_vmap
    def _(size: int, batched: tuple, index: jax.Array, leaves: list[jax.Array]):
        index_is_batched, are_batched = batched
        if index_is_batched:  # So this is the axis of the workers.
            rows = [leaf for leaf, on in zip(leaves, are_batched, strict=True) if on]
            sums = iter(_sum_of_rows(rows, size))
            totals = [
                next(sums) if on else leaf * size
                for leaf, on in zip(leaves, are_batched, strict=True)
            ]
        else:
            axes = [0 if is_batched else None for is_batched in are_batched]
            totals = jax.vmap(add, in_axes=(None, axes))(index, leaves)
        return totals, [not index_is_batched] * len(leaves)

    return add(lax.axis_index(axis_name), leaves)


def _sum_of_rows(leaves: list[jax.Array], size: int) -> list[jax.Array]:
    """Sums each array over its leading axis, in order, some rows in a round."""
    first = size % _UNROLLED or min(size, _UNROLLED)

    def add_some(index: jax.Array, totals: list[jax.Array]) -> list[jax.Array]:
        start = first + _UNROLLED * index
        return [
            _add_rows(total, lax.dynamic_slice_in_dim(leaf, start, _UNROLLED))
            for total, leaf in zip(totals, leaves, strict=True)
        ]

    totals = [_add_rows(leaf[0], lax.slice_in_dim(leaf, 1, first)) for leaf in leaves]
    rounds = (size - first) // _UNROLLED
    return lax.fori_loop(0, rounds, add_some, totals) if rounds else totals


@partial(jax.jit, inline=True)
def _add_rows(total: jax.Array, rows: jax.Array) -> jax.Array:
    for row in range(len(rows)):
        total = total + lax.index_in_dim(rows, row, keepdims=False)
    return total


def gather(flat: jax.Array, axis_name: str) -> jax.Array:
    """Gathers a vector of every worker, behind a leading axis.

    For TPUs, XLA makes an all-reduce of K vectors of it, mostly zeros, unless the
    length is a multiple of 128. So there the vector is padded on its way.
    """

    def plain(flat: jax.Array) -> jax.Array:
        return lax.all_gather(flat, axis_name)

    def padded(flat: jax.Array) -> jax.Array:
        return plain(jnp.pad(flat, (0, -flat.size % _TPU_LANES)))[:, : flat.size]

    return lax.platform_dependent(flat, tpu=padded, default=plain)


def exchange_rows(rows: jax.Array, axis_name: str) -> jax.Array:
    """Sends row j of each worker to worker j, which gets a row of every worker."""
    # Never true. An all-to-all under vmap refuses what is the same on all workers.
    never = lax.axis_index(axis_name) < 0
    rows = jnp.where(never, jnp.zeros_like(rows), rows)
    return lax.all_to_all(rows, axis_name, split_axis=0, concat_axis=0, tiled=True)


def _as_integers(leaf: jax.Array) -> jax.Array:
    """The bits of narrow floats as integers; any other leaf as it is."""
    if jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.dtype.itemsize < 4:
        width = leaf.dtype.itemsize * 8
        return lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{width}"))
    return leaf
