"""Sending coordinates that every worker draws alike: values alone, no indices."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gmc_jax.compressors._selection import extract
from gmc_jax.core import Compressor


def shared_places(draw: Callable[[jax.Array, int], jax.Array]) -> Compressor:
    """The shared compressor that keeps the places `draw(key, d) -> places[s]`.

    It is linear given the key, so messages, [s] values each, may be added as they are.
    """

    def encode(key, x):
        message, lost = extract(x, draw(key, x.size))
        return message.values, lost

    def decode(key, messages, d):
        total = jnp.sum(messages, axis=0)
        places = draw(key, d)
        return jnp.zeros(d, total.dtype).at[places].set(total, unique_indices=True)

    return Compressor(encode, decode, shared=True, linear=True)
