"""The compressor that sends the whole vector."""

from __future__ import annotations

import jax.numpy as jnp

from gmc_jax.compressors._of_vectors import of_vectors
from gmc_jax.core import Compressor
from gmc_jax.utils.call_repr import call_repr


@call_repr
def dense() -> Compressor:
    """Sends the whole vector, without compression.

    Returns:
      A shared compressor whose message is the vector itself, [d], without indices.

    Guarantees:
      `lost` is zero.
    """

    def encode(key, x):
        del key
        return x, jnp.zeros_like(x)

    def decode(key, messages, d):
        del key, d
        return jnp.sum(messages, axis=0)

    return of_vectors(encode, decode, shared=True, linear=True)
