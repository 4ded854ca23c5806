"""Rounding the entries of a bucket to multiples of its scale."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from gmc_jax.compressors._buckets import Quantiser, inverse, invertible, multipliable
from gmc_jax.compressors._draws import uniform


def multiples(
    levels: int,
    scale_of: Callable[[jax.Array, jax.Array], jax.Array],
    rounded: Callable[[jax.Array, jax.Array], jax.Array],
) -> Quantiser:
    """A code is the multiple of the scale, from -levels to levels, plus levels.

    An entry beyond the last multiple counts as that.

    Args:
      levels: 1 to 127.
      scale_of: `(blocks, counts) -> scales`, [n], for the arguments of a `Quantiser`.
      rounded: `(x, words) -> integers`, entry by entry, from entries over their scale:
        `to_nearest` or `at_random`.
    """
    return Quantiser(
        bits=(2 * levels).bit_length(),
        encode=partial(_encode, levels, scale_of, rounded),
        value=partial(_value, levels),
    )


def to_nearest(x: jax.Array, words: jax.Array) -> jax.Array:
    """The nearest integer; ties go to the even one."""
    del words
    return jnp.round(x)


def at_random(x: jax.Array, words: jax.Array) -> jax.Array:
    """One of the two integers around x, whose mean is x."""
    return jnp.floor(x + uniform(words, x.dtype))


def _encode(levels, scale_of, rounded, blocks, counts, words):
    scales = scale_of(blocks, counts)
    scales = invertible(multipliable(scales, levels, scales))
    whole = rounded(blocks * inverse(scales)[:, None], words)
    return (jnp.clip(whole, -levels, levels) + levels).astype(jnp.uint8), scales


def _value(levels, codes, scales):
    return (codes.astype(jnp.int32) - levels).astype(scales.dtype) * scales
