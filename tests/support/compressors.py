"""The table of compressors, over which `tests/compressors/test_laws.py` runs."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gmc_jax import (
    Compressor,
    dense,
    random_block,
    random_k,
    sampled_top_k,
    scaled_sign,
    threshold,
    top_k,
    top_k_of_rows,
)


def like(x) -> jax.ShapeDtypeStruct:
    """What a message of x is decoded to."""
    return jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x))


class Row(NamedTuple):
    """A compressor, and what its laws need to know of it."""

    make: Callable[[float], Compressor]  # from the ratio
    has_ratio: bool = True
    # Whether a part of every entry is sent. Sums are then rounded.
    splits_entries: bool = False


COMPRESSORS = {
    "dense": Row(lambda ratio: dense(), has_ratio=False),
    "top_k": Row(top_k),
    "top_k_of_rows": Row(lambda ratio: top_k_of_rows(3), has_ratio=False),
    "sampled_top_k": Row(lambda ratio: sampled_top_k(ratio, sample=0.3)),
    "random_k": Row(random_k),
    "random_block": Row(random_block),
    "threshold": Row(lambda ratio: threshold(0.5, ratio)),
    "scaled_sign": Row(
        lambda ratio: scaled_sign(), has_ratio=False, splits_entries=True
    ),
}


def thinned() -> Compressor:
    """Keeps each entry with probability one half, as a user could write it.

    It does not say that it is linear.
    """

    def encode(key, x):
        message = jnp.where(jax.random.bernoulli(key, 0.5, x.shape), x, 0)
        return message, x - message

    def decode(key, messages, like):
        del key, like
        return messages.sum(axis=0)

    return Compressor(encode, decode)
