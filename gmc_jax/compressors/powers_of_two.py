"""Powers of two: natural compression, and floats without a mantissa."""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import lax

from gmc_jax.compressors._buckets import (
    Quantiser,
    by_buckets,
    check_bucket,
    inverse,
    invertible,
    largest,
)
from gmc_jax.compressors._draws import uniform
from gmc_jax.compressors._float_bits import float_bits, power_above, to_bits
from gmc_jax.core import Compressor
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def powers_of_two(
    exponent_bits: int = 7, bucket: int | None = 512, stochastic: bool = True
) -> Compressor:
    """Rounds each entry to a sign times a power of two, or to zero.

    For each bucket v of entries, with L = 2^exponent_bits - 1:

        scale = the smallest power of two that no |v_j| exceeds
        C(v)_j = sign(v_j) * p, with p of 0, scale * 2^(1 - L), ..., scale / 2, scale

    With p <= |v_j| <= q the two around |v_j|, stochastic rounding takes q with
    probability (|v_j| - p) / (q - p), and p otherwise. Else the nearer one is taken,
    and q if they are equally near.

    Seven bits of the exponent and the sign fill a byte: natural compression. They reach
    down to scale * 2^-126, so that what is rounded to zero hardly counts. Three bits,
    without `stochastic`, are E3M0, which Streaming DiLoCo sends: four bits an entry.

    Args:
      exponent_bits: 1 to 7, besides the sign.
      bucket: the number of entries with one scale; the last bucket may be shorter. None
        is one bucket of the whole vector, which works on no split leaf.
      stochastic: whether an entry is rounded at random, such that its mean is the
        entry.

    Returns:
      A compressor whose message has the codes, exponent_bits + 1 bits an entry, and the
      scales, a float a bucket. An entry that is not finite makes all of its bucket NaN
      or infinite, decoded and lost.

    Raises:
      ValueError: if an argument is out of range.

    Guarantees:
      Stochastic rounding is unbiased: the mean of what is decoded, over keys, is x.
      Where |x_j| >= scale * 2^(1 - L), the variance of entry j is at most x_j^2 / 8.
      Rounded to the nearest, |lost_j| <= |x_j| / 3 for those.
      Finite entries give finite messages: the scale is at most 2^126, or 2^1022 in
      float64, and larger entries are rounded down to it. Where the scale is below the
      smallest normal number, all of the bucket is lost.
      Scaling x by a power of two scales the decoded vector and `lost` with it.
      A message is d * (exponent_bits + 1) bits, rounded up to words of 32 (to bytes if
      a code is one), and a float for each bucket.

    References:
      Horvath, Ho, Horvath, Sahu, Canini and Richtarik, "Natural Compression for
      Distributed Deep Learning", arXiv:1905.10988.
      Douillard et al., "Streaming DiLoCo with overlapping communication",
      arXiv:2501.18512, for E3M0.
    """
    checks.known(exponent_bits=exponent_bits)
    checks.positive_int(exponent_bits=exponent_bits)
    if exponent_bits > 7:
        raise ValueError(
            f"`exponent_bits` must be from 1 to 7, got {exponent_bits}; with the sign, "
            "a code must fit 8 bits."
        )
    check_bucket(bucket)
    checks.flag(stochastic=stochastic)
    quantiser = Quantiser(
        exponent_bits + 1,
        partial(_encode, exponent_bits, stochastic),
        partial(_value, exponent_bits),
    )
    return by_buckets(quantiser, bucket)


def _encode(exponent_bits, stochastic, blocks, counts, words):
    del counts
    last = 2**exponent_bits - 1
    made = float_bits(blocks.dtype)
    scales = power_above(invertible(largest(blocks)))
    ratios = jnp.abs(blocks) * inverse(scales)[:, None]
    if not stochastic:
        words = jnp.full_like(words, np.uint32(2**31))
    # The mantissa is how far a number lies between two powers. With a draw added, it
    # carries to the exponent as often as the number must be rounded up.
    spare = made.mantissa - 32
    draws = words.astype(made.integers)
    draws = draws << spare if spare > 0 else draws >> -spare
    exponents = (to_bits(ratios) + draws) >> made.mantissa
    codes = jnp.clip(exponents.astype(jnp.int32) + (last - made.bias), 0, last)
    if last < made.bias:  # Or else the smallest power is the smallest normal number.
        # Below the smallest power it must carry to that one, from zero.
        least = ratios * 2.0 ** (last - 1)
        lowest = jnp.floor(least + uniform(words, blocks.dtype)).astype(jnp.int32)
        codes = jnp.where(least < 1, lowest, codes)
    signs = (to_bits(blocks) >> made.sign).astype(jnp.uint32)
    return codes.astype(jnp.uint32) | signs << exponent_bits, scales


def _value(exponent_bits, codes, scales):
    last = 2**exponent_bits - 1
    made = float_bits(scales.dtype)
    codes = codes.astype(made.integers)
    exponents, signs = codes & last, codes >> exponent_bits
    magnitudes = (exponents + (made.bias - last)) << made.mantissa
    bits = jnp.where(exponents > 0, magnitudes, 0) | signs << made.sign
    return lax.bitcast_convert_type(bits, scales.dtype) * scales
