"""Encoding and decoding selected entries of a vector as `Sparse` messages."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from gmc_jax.core import Sparse, Tree


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
    x = jnp.asarray(x)
    values = x.at[indices].get(mode="fill", fill_value=0, indices_are_sorted=ascending)
    # These zeros depend on the values. So XLA reads x before it writes, and copies
    # nothing. The zero of a NaN is a NaN, so that it shows in `lost` too.
    zeros = jnp.minimum(jnp.abs(values), 0)
    lost = x.at[indices].set(
        zeros, mode="drop", unique_indices=True, indices_are_sorted=ascending
    )
    return Sparse(values, indices), lost


def scatter_sum(
    key: jax.Array, messages: Sparse, d: int, ascending: bool = False
) -> jax.Array:
    """Decodes sparse messages, stacked on a leading axis, into their sum, [d].

    `ascending` is what `extract` takes.
    """
    del key
    messages = jax.tree.map(jnp.asarray, messages)
    count = messages.indices.shape[0]
    return scatter_each(lambda worker: row(messages, worker), count, d, ascending)


def scatter_each(
    message: Callable[[jax.Array], Sparse], count: int, d: int, ascending: bool = True
) -> jax.Array:
    """Decodes sparse messages, each made when it is needed, into their sum, [d].

    Each message is one scatter with unique indices, in the order of the messages. So
    the sum has the same bits on every device, and no second vector of size d is
    allocated.

    Args:
      message: from the number of a message to its values and indices.
      count: how many messages there are.
      d: the size of the vector.
      ascending: what `extract` takes.
    """

    def add(number: jax.Array, total: jax.Array) -> jax.Array:
        values, indices = message(number)
        return total.at[indices].add(
            values, mode="drop", unique_indices=True, indices_are_sorted=ascending
        )

    dtype = jax.eval_shape(message, jnp.zeros((), jnp.int32)).values.dtype
    return lax.fori_loop(0, count, add, jnp.zeros(d, dtype))


def row(messages: Tree, number: jax.Array | int) -> Tree:
    """One of several messages that are stacked on a leading axis."""
    return jax.tree.map(lambda leaf: leaf[number], messages)
