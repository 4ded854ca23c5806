"""Few bins for each bucket, and the mean of each bin."""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp

from gmc_jax.compressors._buckets import (
    Quantiser,
    are_entries,
    by_buckets,
    check_bucket,
    inverse,
    invertible,
    largest,
    mean_and_deviation,
    total,
)
from gmc_jax.core import Compressor
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def centroids(
    bits: int = 2, bucket: int | None = 512, offset: float = 0.0
) -> Compressor:
    """Sends the bin of each entry, and the mean of each bin: SparseLoCo's values.

    For each bucket v of entries with mean m and standard deviation sigma, and n =
    2^bits bins:

        scale = 6 sigma / n
        code_j = round((v_j - m) / scale - offset) + n / 2, clipped to 0, ..., n - 1
        C(v)_j = the mean of all v_i with code_i = code_j

    Rounding takes ties to the even integer. sigma^2 is the mean of (v_j - m)^2. The
    authors' code divides their sum by one less than the number of entries, so its bins
    are a little wider; and its bucket is all that is sent of a tensor.

    Args:
      bits: of a code, 1 to 4.
      bucket: the number of entries with bins of their own; the last bucket may be
        shorter. None is one bucket of the whole vector, which works on no split leaf.
      offset: by how many bins the bins move up, in [0, 1]. With 0, as in SparseLoCo,
        the bin n / 2 has m in its middle, and there is one more below it than above.
        With 0.5 there are as many bins below m as above. The largest entries of a
        vector have both signs and leave the middle empty: of 64 of 4096 normal entries
        and two bits, all are then in two of the four bins.

    Returns:
      A compressor whose message has the codes, `bits` an entry, and the means of all
      bins, n floats a bucket; that of an empty bin is 0. An entry that is not finite
      makes all of its bucket NaN, decoded and lost.

    Raises:
      ValueError: if an argument is out of range.

    Guarantees:
      In each bucket the entries of `lost` sum to 0, and `lost` is orthogonal to what is
      decoded: |x|^2 = |decoded|^2 + |lost|^2. So |lost| <= |x|.
      Finite entries give finite messages. Where the largest entry is below the smallest
      normal number, all of the bucket is lost.
      A message is d * bits bits, rounded up to words of 32, and 2^bits floats for each
      bucket.

    References:
      Sarfi, Therien, Lidin and Belilovsky, "Communication Efficient LLM Pre-training
      with SparseLoCo", arXiv:2508.15706.
    """
    checks.known(bits=bits, offset=offset)
    checks.positive_int(bits=bits)
    if bits > 4:
        raise ValueError(
            f"`bits` must be from 1 to 4, got {bits}; each of 2^bits bins is a float."
        )
    check_bucket(bucket)
    checks.proportion(offset=offset)
    bins = 2**bits
    encode = partial(_encode, bins, float(offset))
    quantiser = Quantiser(bits, encode, _value, partial(_fit, bins))
    return by_buckets(quantiser, bucket)


def _encode(bins, offset, blocks, counts, words):
    del words
    unit, most = _unit(blocks)
    mean, deviation = mean_and_deviation(unit, counts)
    places = (unit - mean[:, None]) * inverse(6 / bins * deviation)[:, None] - offset
    codes = jnp.clip(jnp.round(places) + bins // 2, 0, bins - 1).astype(jnp.int32)
    return codes, most


def _fit(bins, blocks, counts, codes):
    unit, most = _unit(blocks)

    def mean_of_bin(code: int):
        chosen = are_entries(unit, counts) & (codes == code)
        number = jnp.maximum(total(chosen.astype(unit.dtype)), 1)
        return total(jnp.where(chosen, unit, 0)) / number

    means = jnp.stack([mean_of_bin(code) for code in range(bins)], axis=1)
    return means * most[:, None]


def _unit(blocks):
    # Over the largest: squares and sums of the entries themselves could overflow.
    most = invertible(largest(blocks))
    return blocks * inverse(most)[:, None], most


def _value(codes, *means):
    codes = codes.astype(jnp.int32)
    values = means[-1]
    for code, mean in enumerate(means[:-1]):
        values = jnp.where(codes == code, mean, values)
    return values
