"""The vectors of a tree: flattening and restoring it, in programs that compile fast."""

from collections.abc import Callable, Sequence
from itertools import accumulate

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap

from gmc_jax.core import Tree
from gmc_jax.utils.trees import upcast


def at_run_time(numbers: Sequence[int], step: jax.Array) -> list[jax.Array]:
    """Makes int32 numbers that a program for a CPU knows only when it runs.

    XLA's compiler for CPUs compiles identical kernels once. Slices at constants differ
    from each other, so a tree of many leaves would be many kernels. On other devices
    the numbers are constants.

    Args:
      numbers: the numbers.
      step: any int32.
    """
    constants = tuple(map(np.int32, numbers))

    def hidden(step: jax.Array) -> tuple[jax.Array, ...]:
        # One round of a loop. XLA does not know its bound: a count of bits is below 64.
        zeros = (np.int32(0),) * len(constants)
        once = 1 + (lax.population_count(step) >> 6)
        return lax.fori_loop(0, once, lambda _, zeros: constants, zeros)

    @custom_vmap
    def on_platform(step: jax.Array) -> tuple[jax.Array, ...]:
        return lax.platform_dependent(
            step, cpu=hidden, default=lambda _: tuple(map(jnp.asarray, constants))
        )

    @on_platform.def_vmap
    def _(size: int, batched: list[bool], step: jax.Array) -> tuple:
        del size, batched
        return on_platform(step[0]), (False,) * len(constants)

    return list(on_platform(step))


def unstack(stacked: jax.Array, step: jax.Array) -> list[jax.Array]:
    """Returns the rows of an array [n, size], at indices from `at_run_time`."""
    rows = _read_rows(stacked, at_run_time(range(len(stacked)), step))
    return _computed(rows, step)


def to_vectors(
    tree: Tree, per_leaf: bool, step: jax.Array | None = None
) -> tuple[dict[int, jax.Array], Callable[[dict[int, jax.Array]], Tree]]:
    """Flattens a tree to one vector, or each leaf to a vector of its own.

    Args:
      tree: the tree of arrays.
      per_leaf: whether each leaf becomes a vector of its own.
      step: for `at_run_time`.

    Returns:
      The vectors that are not empty, by the index of their leaf (0 for the whole
      tree). And a function that restores the tree from such vectors, in their dtypes.
    """
    leaves, treedef = jax.tree.flatten(tree)
    shapes = [jnp.shape(leaf) for leaf in leaves]
    flat = [jnp.reshape(leaf, -1) for leaf in leaves]
    if per_leaf:
        vectors = {index: leaf for index, leaf in enumerate(flat) if leaf.size}

        def restore_leaves(vectors: dict[int, jax.Array]) -> Tree:
            whole = [vectors.get(index, leaf) for index, leaf in enumerate(flat)]
            return treedef.unflatten(map(jnp.reshape, whole, shapes))

        return vectors, restore_leaves

    sizes = [leaf.size for leaf in flat]
    if not sum(sizes):
        return {}, lambda vectors: tree
    if len({leaf.dtype for leaf in flat}) > 1:
        # Cast explicitly, since JAX does not promote floats of 8 bits.
        flat = upcast(flat)
        dtype = max((leaf.dtype for leaf in flat), key=lambda dtype: dtype.itemsize)
        flat = [leaf.astype(dtype) for leaf in flat]
    places = list(accumulate(sizes, initial=0))[:-1]
    starts = None if step is None else at_run_time(places, step)

    def restore_tree(vectors: dict[int, jax.Array]) -> Tree:
        if starts is None or step is None:
            parts = jnp.split(vectors[0], places[1:])
        else:
            parts = _computed(_read_parts(vectors[0], starts, sizes), step)
        return treedef.unflatten(map(jnp.reshape, parts, shapes))

    return {0: _join(flat, starts)}, restore_tree


def _join(parts: list[jax.Array], starts: list[jax.Array] | None) -> jax.Array:
    """Concatenates vectors, given where each starts, if that is known at run time.

    On a CPU each is written into its place. So it can be freed before the next is
    computed, and what computes it writes to that place.
    """
    if len(parts) == 1:
        return parts[0]
    if starts is None:
        return jnp.concatenate(parts)
    return lax.platform_dependent(
        parts,
        starts,
        cpu=_write_each,
        default=lambda parts, starts: jnp.concatenate(parts),
    )


def _on_last_axes(function: Callable) -> Callable:
    """Lets a batch be further leading axes of the arrays that a function takes.

    JAX would batch slices at numbers that it does not know as gathers and scatters.

    Args:
      function: `(arrays, numbers)` to arrays. It works on the last axes of the arrays,
        whatever axes are before. `numbers` are from `at_run_time`.
    """
    on_last_axes = custom_vmap(function)

    @on_last_axes.def_vmap
    def _(size: int, batched: tuple, arrays: Tree, numbers: list) -> tuple:
        arrays = jax.tree.map(
            lambda array, is_batched: (
                array
                if is_batched
                else jnp.broadcast_to(array, (size, *jnp.shape(array)))
            ),
            arrays,
            batched[0],
        )
        results = on_last_axes(arrays, numbers)
        return results, jax.tree.map(lambda _: True, results)

    return on_last_axes


@_on_last_axes
def _write_each(parts: list[jax.Array], starts: list[jax.Array]) -> jax.Array:
    *lead, _ = parts[0].shape
    whole = jnp.zeros([*lead, sum(part.shape[-1] for part in parts)], parts[0].dtype)
    first = [np.int32(0)] * len(lead)
    for part, start in zip(parts, starts, strict=True):
        whole = lax.dynamic_update_slice(whole, part, [*first, start])
    return whole


def _read_parts(
    whole: jax.Array, starts: Sequence, sizes: list[int]
) -> list[jax.Array]:
    @_on_last_axes
    def read(whole: jax.Array, starts: Sequence) -> list[jax.Array]:
        *lead, _ = whole.shape
        first = [np.int32(0)] * len(lead)
        return [
            lax.dynamic_slice(whole, [*first, start], [*lead, size])
            for start, size in zip(starts, sizes, strict=True)
        ]

    return read(whole, starts)


def _computed(parts: list[jax.Array], step: jax.Array) -> list[jax.Array]:
    """Returns parts of a vector as they are, as what a program for a GPU computes.

    XLA for GPUs copies a slice that is only returned in a kernel of its own. What is
    computed from the slice is returned by the kernel that reads it for more, such as
    the parameters. That saves one reading of the vector.
    """
    if len(parts) == 1:
        return parts
    return lax.platform_dependent(
        parts, step, cpu=_as_they_are, tpu=_as_they_are, default=_select_all
    )


def _as_they_are(parts: list[jax.Array], step: jax.Array) -> list[jax.Array]:
    del step
    return parts


def _select_all(parts: list[jax.Array], step: jax.Array) -> list[jax.Array]:
    # XLA does not know that it always holds: 32 bits are counted at most.
    holds = lax.population_count(step) <= 32
    return [lax.select(holds, part, lax.full_like(part, 0)) for part in parts]


@_on_last_axes
def _read_rows(stacked: jax.Array, rows: list[jax.Array]) -> list[jax.Array]:
    axis = stacked.ndim - 2
    return [
        lax.dynamic_index_in_dim(stacked, row, axis, keepdims=False) for row in rows
    ]
