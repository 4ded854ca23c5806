"""TernGrad: stochastic signs and zeros."""

from __future__ import annotations

import jax.numpy as jnp

from gmc_jax.compressors._buckets import (
    by_buckets,
    check_bucket,
    inverse,
    invertible,
    largest,
    mean_and_deviation,
)
from gmc_jax.compressors._multiples import at_random, multiples
from gmc_jax.core import Compressor
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def terngrad(bucket: int | None = None, clip: float | None = 2.5) -> Compressor:
    """Sends the sign of an entry, or zero, at random: TernGrad.

    For each bucket v of entries with standard deviation sigma:

        u_j = v_j, clipped to [-clip * sigma, clip * sigma] (v_j where sigma is 0)
        S = max_j |u_j|
        C(v)_j = S * sign(u_j) * b_j, where P(b_j = 1) = |u_j| / S, and b_j = 0 else

    Workers draw for themselves. The paper has one S a layer:
    `all_gather(terngrad(), per_leaf=True)`.

    Args:
      bucket: the number of entries with one S; the last bucket may be shorter. None is
        one bucket of the whole vector, which works on no split leaf.
      clip: where to clip, in standard deviations; None for no clipping.

    Returns:
      A compressor whose message has the codes, 2 bits an entry, and S, a float a
      bucket. An entry that is not finite makes all of its bucket NaN or infinite,
      decoded and lost.

    Raises:
      ValueError: if an argument is out of range.

    Guarantees:
      It is unbiased without a clip. With one the mean of what is decoded, over keys, is
      u: what was clipped is lost for good without error feedback.
      Finite entries give finite messages. S is at most 2^126 (2^1022 in float64), and
      larger entries are clipped. Where S is below the smallest normal number, all of
      the bucket is lost.
      A message is 2 d bits, rounded up to words of 32, and a float for each bucket.

    References:
      Wen et al., "TernGrad: Ternary Gradients to Reduce Communication in Distributed
      Deep Learning", NeurIPS 2017.
    """
    check_bucket(bucket)
    checks.known(clip=clip)
    if clip is not None:
        checks.positive(clip=clip)
        clip = float(clip)

    def scale_of(blocks, counts):
        most = largest(blocks)
        if clip is None:
            return most
        # Over the largest: squares of the entries themselves could overflow.
        size = invertible(most)
        unit = blocks * inverse(size)[:, None]
        _, deviation = mean_and_deviation(unit, counts)
        # Of entries that are all alike the deviation is rounding; nothing is clipped.
        is_rounding = deviation <= 32 * jnp.finfo(unit.dtype).eps
        limit = jnp.where(is_rounding, most, clip * deviation * size)
        return jnp.minimum(most, limit)

    return by_buckets(multiples(1, scale_of, at_random), bucket)
