"""Integers of few bits, with a scale for each bucket."""

from __future__ import annotations

from gmc_jax.compressors._buckets import by_buckets, check_bucket, largest
from gmc_jax.compressors._multiples import at_random, multiples, to_nearest
from gmc_jax.core import Compressor
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def integers(
    bits: int, bucket: int | None = 512, stochastic: bool = False
) -> Compressor:
    """Rounds each entry to an integer of few bits, times a scale for its bucket.

    For each bucket v of entries, one after another:

        scale = max_j |v_j| / (2^(bits-1) - 1)
        C(v)_j = scale * round(v_j / scale)

    Eight bits are signed bytes, int8. Two bits are the signs and zero.

    Args:
      bits: of an entry, 2 to 8.
      bucket: the number of entries with one scale; the last bucket may be shorter. None
        is one bucket of the whole vector, which works on no split leaf.
      stochastic: whether an entry is rounded up or down at random, such that its mean
        is the entry. Otherwise it is rounded to the nearest, ties to even.

    Returns:
      A compressor whose message has the codes, `bits` an entry, and the scales, a float
      a bucket. An entry that is not finite makes all of its bucket NaN or infinite,
      decoded and lost.

    Raises:
      ValueError: if an argument is out of range.

    Guarantees:
      |lost_j| <= scale / 2 if entries are rounded to the nearest, and scale otherwise.
      Stochastic rounding is unbiased: the mean of what is decoded, over keys, is x.
      Finite entries give finite messages. The scale is at most 2^126 (2^1022 in
      float64), which may clip such entries if `bits` is 2 or 3. Where the scale is
      below the smallest normal number, all of the bucket is lost.
      Scaling x by a power of two scales the decoded vector and `lost` with it.
      A message is d * bits bits, rounded up to words of 32 (to bytes if `bits` is 8),
      and a float for each bucket.

    References:
      Dettmers, "8-Bit Approximations for Parallelism in Deep Learning", ICLR 2016;
      Alistarh et al., "QSGD: Communication-Efficient SGD via Gradient Quantization and
      Encoding", NeurIPS 2017, for scales by buckets and stochastic rounding.
    """
    checks.known(bits=bits)
    checks.positive_int(bits=bits)
    if not 2 <= bits <= 8:
        raise ValueError(
            f"`bits` must be from 2 to 8, got {bits}. For one bit use `scaled_sign`."
        )
    check_bucket(bucket)
    checks.flag(stochastic=stochastic)
    levels = 2 ** (bits - 1) - 1

    def scale_of(blocks, counts):
        del counts
        return largest(blocks) / levels

    rounded = at_random if stochastic else to_nearest
    return by_buckets(multiples(levels, scale_of, rounded), bucket)
