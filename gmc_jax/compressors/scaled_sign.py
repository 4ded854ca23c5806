"""The signs of a vector, times the mean of its magnitudes."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gmc_jax.compressors._packing import pack, unpack
from gmc_jax.core import Compressor
from gmc_jax.utils.described import described
from gmc_jax.utils.trees import accumulator_dtype, mean_of, shares


class ScaledSigns(NamedTuple):
    """A message of one bit a coordinate, and how much the bits are worth.

    Attributes:
      signs: [ceil(d / 32)] uint32, a bit of 1 for plus. Of w words, bit b of word j is
        the sign of the coordinate b * w + j.
      scale: the magnitude of all coordinates, float32 for 16-bit vectors.
    """

    signs: jax.Array
    scale: jax.Array


@described
def scaled_sign() -> Compressor:
    """Sends one bit a coordinate: C(x) = (|x|_1 / d) * sign(x), with sign(0) = +1.

    Unlike a sparse message it sends something of every coordinate, and loses something
    of every one: `lost = x - C(x)` has no zeros to speak of and, for 16-bit vectors, is
    float32. Where layers differ in size, one scale for each fits better than one for
    all: `all_gather(scaled_sign(), per_leaf=True)`. It needs error feedback.

    Returns:
      A compressor whose message is `ScaledSigns`. A NaN anywhere makes the scale NaN,
      and with it all that is decoded and all that is lost.

    Guarantees:
      |lost|^2 = (1 - delta) |x|^2 with delta = |x|_1^2 / (d |x|_2^2), at least 1 / d.
      Scaling x by a positive number scales message and loss.
      Of finite entries the scale is finite: what is added is shares of 1 / d or less,
      which may be 0 where they are no normal numbers.
      d bits, rounded up to words of 32, and one number travel.
      Decoding takes the messages in the order of workers, one at a time.

    References:
      Karimireddy, Rebjock, Stich and Jaggi, "Error Feedback Fixes SignSGD and other
      Gradient Compression Schemes", ICML 2019.
    """

    def encode(key, x):
        del key
        wide = jnp.asarray(x, accumulator_dtype(x.dtype))
        share, rest = shares(x.size)
        scale = mean_of(jnp.sum(jnp.abs(wide) * share), rest)
        plus = wide >= 0
        lost = wide - jnp.where(plus, scale, -scale)
        return ScaledSigns(pack(plus), scale), lost

    def decode(key, messages, d):
        del key
        messages = jax.tree.map(jnp.asarray, messages)

        def add(worker: jax.Array, total: jax.Array) -> jax.Array:
            scale = messages.scale[worker]
            plus = unpack(messages.signs[worker], d)
            return total + jnp.where(plus, scale, -scale)

        zero = jnp.zeros(d, messages.scale.dtype)
        return lax.fori_loop(0, messages.scale.shape[0], add, zero)

    return Compressor(encode, decode, linear=True)
