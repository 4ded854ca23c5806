"""The table of compressors, over which `tests/compressors/test_laws.py` runs."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gmc_jax import (
    Compressor,
    chunked_top_k,
    dense,
    quantised,
    random_block,
    random_k,
    sampled_top_k,
    scaled_sign,
    threshold,
    top_k,
)
from gmc_jax.compressors._packing import pack, unpack
from gmc_jax.utils.trees import accumulator_dtype


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
    "sampled_top_k": Row(lambda ratio: sampled_top_k(ratio, sample=0.3)),
    "chunked_top_k": Row(lambda ratio: chunked_top_k(ratio, chunk=4096)),
    "random_k": Row(random_k),
    "random_block": Row(random_block),
    "threshold": Row(lambda ratio: threshold(0.5, ratio)),
    "scaled_sign": Row(
        lambda ratio: scaled_sign(), has_ratio=False, splits_entries=True
    ),
    "quantised": Row(
        lambda ratio: quantised(top_k(ratio), scaled_sign()), splits_entries=True
    ),
}


def coarse() -> Compressor:
    """Rounds to multiples of a seventh of the largest magnitude, up or down at random.

    A quantiser of any shape, as a user could write it: a byte an entry, and a scale.
    """

    def encode(key, x):
        wide = x.astype(accumulator_dtype(x.dtype))
        scale = jnp.maximum(jnp.max(jnp.abs(wide)), jnp.finfo(wide.dtype).tiny) / 7
        codes = jnp.floor(wide / scale + jax.random.uniform(key, x.shape))
        codes = codes.astype(jnp.int8)
        return (codes, scale), wide - codes.astype(wide.dtype) * scale

    def decode(key, messages, like):
        del key
        codes, scales = messages
        return jnp.tensordot(scales, codes.astype(scales.dtype), 1).reshape(like.shape)

    return Compressor(encode, decode, linear=True)


def two_bits() -> Compressor:
    """Sends the sign, and whether the magnitude is above the mean, in two bits each.

    The values decoded are the means of the small and of the large magnitudes.
    """

    def encode(key, x):
        del key
        wide = jnp.abs(x.astype(accumulator_dtype(x.dtype)))
        large = wide > jnp.mean(wide)
        sums = jnp.stack([jnp.sum(wide * mask) for mask in (~large, large)])
        counts = jnp.stack([jnp.sum(~large), jnp.sum(large)])
        means = sums / jnp.maximum(counts, 1)
        decoded = jnp.where(large, means[1], means[0]) * jnp.where(x < 0, -1, 1)
        codes = large.astype(jnp.uint32) << 1 | (x < 0).astype(jnp.uint32)
        return (pack(codes, 2), means), x - decoded.astype(wide.dtype)

    def decode(key, messages, like):
        del key

        def one(message):
            words, means = message
            codes = unpack(words, like.size, 2)
            return means[codes >> 1] * jnp.where(codes & 1, -1, 1)

        return jnp.sum(jax.vmap(one)(messages), axis=0).reshape(like.shape)

    return Compressor(encode, decode, linear=True)


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
