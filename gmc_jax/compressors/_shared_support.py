"""Compressors that draw the same coordinates on all workers and send values alone."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gmc_jax.compressors._of_vectors import of_vectors
from gmc_jax.compressors._sparse import extract
from gmc_jax.core import Compressor


def shared_indices(draw: Callable[[jax.Array, int], jax.Array]) -> Compressor:
    """Makes a shared compressor that keeps the entries at `draw(key, d) -> indices[s]`.

    A message is the [s] values at those indices. Given the key, the compressor is
    linear, so messages may be added without decoding them.
    """

    def encode(key, x):
        message, lost = extract(x, draw(key, x.size))
        return message.values, lost

    def decode(key, messages, d):
        total = jnp.sum(messages, axis=0)
        indices = draw(key, d)
        return jnp.zeros(d, total.dtype).at[indices].set(total, unique_indices=True)

    return of_vectors(encode, decode, shared=True, linear=True)
