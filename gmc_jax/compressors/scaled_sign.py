"""The signs of a vector, times the mean of its magnitudes."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gmc_jax.compressors._buckets import (
    Quantiser,
    at_most,
    by_buckets,
    check_bucket,
    total,
)
from gmc_jax.compressors._of_vectors import of_vectors
from gmc_jax.compressors._packing import add_packed, pack
from gmc_jax.core import Compressor
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.trees import accumulator_dtype, mean_of, shares


class ScaledSigns(NamedTuple):
    """A message of one bit for each coordinate, and one magnitude for all or a bucket.

    Attributes:
      signs: [ceil(d / 32)] uint32, a bit of 1 for plus. With w words, bit b of word j
        is the sign of coordinate b * w + j.
      scale: the magnitude, float32 for 16-bit vectors; [buckets] if there are some.
    """

    signs: jax.Array
    scale: jax.Array


@call_repr
def scaled_sign(bucket: int | None = None) -> Compressor:
    """Sends one bit a coordinate: C(x) = (|x|_1 / d) * sign(x), with sign(0) = +1.

    Unlike a sparse compressor it sends, and loses, a part of every coordinate. So
    `lost = x - C(x)` has hardly any zeros; for 16-bit vectors it is float32. The
    compressor is biased and needs error feedback.

    Where the magnitudes of layers differ, a scale for each leaf fits better than one
    for all: `all_gather(scaled_sign(), per_leaf=True)`. So does a scale for each
    bucket, which is then the x and the d of the equation.

    Args:
      bucket: the number of entries, one after another, with one scale; the last bucket
        may be shorter. None is one bucket of the whole vector, which works on no split
        leaf.

    Returns:
      A compressor whose message is `ScaledSigns`. A NaN in x makes the scale NaN, and
      with it everything that is decoded or lost; with buckets, of that bucket.

    Raises:
      ValueError: if `bucket` is not a positive whole number or None.

    Guarantees:
      |lost|^2 = (1 - delta) |x|^2 with delta = |x|_1^2 / (d |x|_2^2), at least 1 / d.
      Scaling x by a positive number scales the decoded vector and `lost` with it.
      Finite entries give a finite scale: each |x_j| is multiplied by 1 / d or less
      before the sum. A product below the smallest normal number may count as 0.
      A message is d bits, rounded up to words of 32, and one number, or one a bucket.
      The order of the sum in |x|_1 is XLA's. So the last bits of the scale may differ
      between programs, such as one leaf alone and a batch of leaves of its size.
      Decoding adds the messages one at a time, in the order of workers.

    References:
      Karimireddy, Rebjock, Stich and Jaggi, "Error Feedback Fixes SignSGD and other
      Gradient Compression Schemes", ICML 2019.
    """
    check_bucket(bucket)
    if bucket is not None:
        return by_buckets(Quantiser(1, _encode, _value), bucket, ScaledSigns)

    def encode(key, x):
        del key
        wide = jnp.asarray(x, accumulator_dtype(x.dtype))
        share, divisor = shares(x.size)
        scale = mean_of(jnp.sum(jnp.abs(wide) * share), divisor)
        plus = wide >= 0
        lost = wide - _value(plus, scale)
        return ScaledSigns(pack(plus), scale), lost

    def decode(key, messages, d):
        del key
        messages = jax.tree.map(jnp.asarray, messages)

        def value(worker: jax.Array, plus: jax.Array) -> jax.Array:
            return _value(plus, messages.scale[worker])

        return add_packed(messages.signs, value, d)

    return of_vectors(encode, decode, linear=True)


def _encode(blocks, counts, words):
    del words
    share, _ = shares(blocks.shape[1])
    summed = total(jnp.abs(blocks) * share)
    means = summed / (counts.astype(summed.dtype) * share)
    limit = float(jnp.finfo(means.dtype).max)
    return blocks >= 0, at_most(means, limit, summed)


def _value(plus, scales):
    return jnp.where(plus.astype(bool), scales, -scales)
