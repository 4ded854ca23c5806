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
    values = x.at[indices].get(
        mode="fill",
        fill_value=0,
        indices_are_sorted=ascending,
        wrap_negative_indices=False,
    )
    # These zeros depend on the values. So XLA reads x before it writes, and copies
    # nothing. The zero of a NaN is a NaN, so that it shows in `lost` too.
    zeros = jnp.minimum(jnp.abs(values), 0)
    lost = x.at[indices].set(
        zeros,
        mode="drop",
        unique_indices=True,
        indices_are_sorted=ascending,
        wrap_negative_indices=False,
    )
    return Sparse(values, indices), lost


def scatter_sum(
    key: jax.Array, messages: Sparse, d: int, ascending: bool = False
) -> jax.Array:
    """Decodes sparse messages, stacked on a leading axis, into their sum, [d].

    `ascending` is what `extract` takes.
    """
    del key
    return scatter_each(lambda message: message, messages, d, ascending)


def scatter_each(
    read: Callable[[Tree], Sparse], messages: Tree, d: int, ascending: bool = True
) -> jax.Array:
    """Decodes messages, each read when it is needed, into their sum, [d].

    Each message is one scatter with unique indices, in the order of the messages. So
    the sum has the same bits on every device, and no second vector of size d is
    allocated.

    Args:
      read: from a message to its values and indices.
      messages: stacked on a leading axis.
      d: the size of the vector.
      ascending: what `extract` takes.
    """
    messages = jax.tree.map(jnp.asarray, messages)

    def add(total: jax.Array, message: Tree) -> tuple[jax.Array, None]:
        values, indices = read(message)
        total = total.at[indices].add(
            values,
            mode="drop",
            unique_indices=True,
            indices_are_sorted=ascending,
            wrap_negative_indices=False,
        )
        return total, None

    # JAX batches what a scan reads without moving the axis that it runs over.
    first = jax.tree.map(lambda leaf: leaf[0], messages)
    dtype = jax.eval_shape(read, first).values.dtype
    return lax.scan(add, jnp.zeros(d, dtype), messages)[0]
