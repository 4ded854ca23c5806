"""Floats of eight bits, with a scale for each bucket."""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
import numpy as np

from gmc_jax.compressors._buckets import (
    Quantiser,
    by_buckets,
    check_bucket,
    inverse,
    largest,
    multipliable,
)
from gmc_jax.compressors._float_bits import float_bits, power_of_two, to_bits
from gmc_jax.core import Compressor
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr

# The bits of the mantissa.
DTYPES = {"float8_e4m3fn": 3, "float8_e5m2": 2}


@call_repr
def float8(dtype: str = "float8_e4m3fn", bucket: int | None = 512) -> Compressor:
    """Rounds each entry to a float of eight bits, times a scale for its bucket.

    For each bucket v of entries, one after another:

        scale = max_j |v_j| / (the largest number of the dtype)
        C(v)_j = scale * cast(v_j / scale)

    The cast rounds to the nearest number, ties to the even one. The codes are the bits
    of the dtype, and travel as bytes.

    Args:
      dtype: "float8_e4m3fn", with three bits of the mantissa and numbers up to 448, or
        "float8_e5m2", with two and up to 57,344.
      bucket: the number of entries with one scale; the last bucket may be shorter. None
        is one bucket of the whole vector, which works on no split leaf.

    Returns:
      A compressor whose message has the codes, a byte an entry, and the scales, a float
      a bucket. An entry that is not finite makes all of its bucket NaN or infinite,
      decoded and lost.

    Raises:
      ValueError: if an argument is not one of these.

    Guarantees:
      |lost_j| <= 2^-4 |x_j| for e4m3fn where |x_j| >= 2^-6 scale, and 2^-10 scale
      below; |lost_j| <= 2^-3 |x_j| for e5m2 where |x_j| >= 2^-14 scale, and 2^-17 scale
      below.
      Finite entries give finite messages. Where the scale is below the smallest normal
      number, all of the bucket is lost.
      Scaling x by a power of two scales the decoded vector and `lost` with it.
      A message is d bytes, and a float for each bucket.

    References:
      Micikevicius et al., "FP8 Formats for Deep Learning", arXiv:2209.05433.
    """
    checks.known(dtype=dtype)
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(
            f"`dtype` must be one of {sorted(DTYPES)}, got {checks.shown(dtype)}."
        )
    check_bucket(bucket)
    quantiser = Quantiser(8, partial(_encode, dtype), partial(_value, dtype))
    return by_buckets(quantiser, bucket)


def _encode(dtype, blocks, counts, words):
    del counts, words
    narrow, made = jnp.finfo(dtype), float_bits(blocks.dtype)
    most, top = largest(blocks), float(narrow.max)
    scales = multipliable(most / top, top, most)
    x = blocks * inverse(scales)[:, None]
    # On CPUs XLA's own cast is slower.
    bits = to_bits(jnp.abs(x))
    dropped = made.mantissa - DTYPES[dtype]
    one = made.integers.type(1)
    half = (one << (dropped - 1)) - one + ((bits >> dropped) & one)
    shift = (made.bias - 1 + int(narrow.minexp)) << DTYPES[dtype]
    normal = ((bits + half) >> dropped).astype(jnp.int32) - shift
    # Below the smallest normal number, codes are multiples of the smallest number.
    subnormal = jnp.round(jnp.abs(x) / float(narrow.smallest_subnormal))
    is_normal = jnp.abs(x) >= float(narrow.tiny)
    codes = jnp.where(is_normal, normal, subnormal.astype(jnp.int32))
    largest_code = int(np.asarray(narrow.max).view(np.uint8))
    signs = (to_bits(x) >> made.sign).astype(jnp.uint32)
    codes = jnp.minimum(codes, largest_code).astype(jnp.uint32)
    return codes | signs << 7, scales


def _value(dtype, codes, scales):
    mantissa, narrow = DTYPES[dtype], jnp.finfo(dtype)
    codes = codes.astype(jnp.int32)
    ones, magnitudes = 2**mantissa - 1, codes & 127
    exponents, fractions = magnitudes >> mantissa, magnitudes & ones
    # A subnormal number has the smallest exponent, and no leading one.
    is_normal = exponents > 0
    significands = jnp.where(is_normal, fractions + ones + 1, fractions)
    powers = power_of_two(
        jnp.maximum(exponents, 1) + (int(narrow.minexp) - 1 - mantissa), scales.dtype
    )
    values = significands.astype(scales.dtype) * powers
    return jnp.where(codes > 127, -values, values) * scales
