"""Encoding and decoding selected entries of a vector as `Sparse` messages."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from gmc_jax.core import Sparse


def extract(
    x: jax.Array, indices: jax.Array, ascending: bool = False
) -> tuple[Sparse, jax.Array]:
    """Moves the entries at some indices out of x [d] into a message.

    Args:
      x: the vector, [d].
      indices: distinct; slots that hold d are unused.
      ascending: whether the indices are known to ascend. Otherwise a TPU sorts them.

    Returns:
      The message, and x with zeros at those indices.
    """

    def one(x: jax.Array, indices: jax.Array) -> tuple[jax.Array, jax.Array]:
        values = x.at[indices].get(
            mode="fill", fill_value=0, indices_are_sorted=ascending
        )
        # These zeros depend on the values. So XLA reads x before it writes, and copies
        # nothing. The zero of a NaN is a NaN, so that it shows in `lost` too.
        zeros = jnp.minimum(jnp.abs(values), 0)
        lost = x.at[indices].set(
            zeros, mode="drop", unique_indices=True, indices_are_sorted=ascending
        )
        return values, lost

    def flattened(x: jax.Array, indices: jax.Array) -> tuple[jax.Array, jax.Array]:
        flat_indices = _in_one_vector(indices, x.shape[1]).reshape(-1)
        message, lost = extract(x.reshape(-1), flat_indices)
        return message.values.reshape(indices.shape), lost.reshape(x.shape)

    x = jnp.asarray(x)
    values, lost = _batched(one, flattened, x.size)(x, indices)
    return Sparse(values, indices), lost


def scatter_sum(
    key: jax.Array, messages: Sparse, d: int, ascending: bool = False
) -> jax.Array:
    """Decodes sparse messages, stacked on a leading axis, into their sum, [d].

    Each message is one scatter with unique indices, in the order of the messages. So
    the sum has the same bits on every device, and no second vector of size d is
    allocated. `ascending` is what `extract` takes.
    """

    def one(values: jax.Array, indices: jax.Array) -> jax.Array:
        def add(worker: jax.Array, total: jax.Array) -> jax.Array:
            return total.at[indices[worker]].add(
                values[worker],
                mode="drop",
                unique_indices=True,
                indices_are_sorted=ascending,
            )

        return lax.fori_loop(0, len(indices), add, jnp.zeros(d, values.dtype))

    def flattened(values: jax.Array, indices: jax.Array) -> jax.Array:
        size, workers, _ = indices.shape
        values, indices = (
            jnp.swapaxes(array, 0, 1).reshape(workers, -1)
            for array in (values, _in_one_vector(indices, d))
        )
        return scatter_sum(key, Sparse(values, indices), size * d).reshape(size, d)

    return _batched(one, flattened, d)(*map(jnp.asarray, messages))


def _batched(one: Callable, flattened: Callable, d: int) -> Callable:
    """Batches a function of a vector [d] as `flattened` does, on CPUs.

    There a batch is treated as one long vector. XLA's gathers and scatters of a batch
    compute the index of each entry in rows, which takes longer to compile.
    """
    function = custom_vmap(one)

    @function.def_vmap
    def _(size: int, batched: list[bool], *arrays: jax.Array) -> tuple:
        arrays = tuple(
            array if is_batched else jnp.broadcast_to(array, (size, *array.shape))
            for array, is_batched in zip(arrays, batched, strict=True)
        )
        if size * d >= 2**31:
            results = jax.vmap(one)(*arrays)
        else:
            results = lax.platform_dependent(
                *arrays, cpu=flattened, default=jax.vmap(one)
            )
        return results, jax.tree.map(lambda _: True, results)

    return function


def _in_one_vector(indices: jax.Array, d: int) -> jax.Array:
    """Indices in rows of d entries, [n, ...], as indices in the n rows joined."""
    rows = jnp.arange(len(indices), dtype=jnp.int32) * d
    shifted = indices + rows.reshape(-1, *[1] * (indices.ndim - 1))
    return jnp.where(indices < d, shifted, len(indices) * d)
