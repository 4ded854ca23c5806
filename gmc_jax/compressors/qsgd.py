"""QSGD: stochastic multiples of the norm of each bucket."""

from __future__ import annotations

import jax.numpy as jnp

from gmc_jax.compressors._buckets import (
    by_buckets,
    check_bucket,
    inverse,
    invertible,
    largest,
    total,
)
from gmc_jax.compressors._multiples import at_random, multiples
from gmc_jax.core import Compressor
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def qsgd(levels: int, bucket: int | None = 512) -> Compressor:
    """Rounds each entry at random to a level of its bucket's norm: QSGD.

    For each bucket v of entries, one after another, with s levels:

        C(v)_j = |v|_2 * sign(v_j) * xi_j / s
        xi_j = l or l + 1, where l = floor(s |v_j| / |v|_2)
        P(xi_j = l + 1) = s |v_j| / |v|_2 - l

    The compressor is unbiased, so that it needs no error feedback. Entries draw for
    themselves, and so do workers.

    Args:
      levels: s, 1 to 127.
      bucket: the number of entries with one norm; the last bucket may be shorter. None
        is one bucket of the whole vector, which works on no split leaf.

    Returns:
      A compressor whose message has the codes, ceil(log2(2 s + 1)) bits an entry, and
      |v|_2 / s, a float a bucket. The paper's Elias code is shorter on average, but its
      length depends on the data. An entry that is not finite makes all of its bucket
      NaN or infinite, decoded and lost.

    Raises:
      ValueError: if an argument is out of range.

    Guarantees:
      It is unbiased: the mean of what is decoded, over keys, is x.
      The variance is at most min(b / s^2, sqrt(b) / s) |v|^2 for a bucket of b entries.
      Finite entries give finite messages. |v|_2 / s counts as 2^126 at most (2^1022 in
      float64), and entries above s times that are clipped. Where it is below the
      smallest normal number, all of the bucket is lost.

    References:
      Alistarh, Grubic, Li, Tomioka and Vojnovic, "QSGD: Communication-Efficient SGD via
      Gradient Quantization and Encoding", NeurIPS 2017.
    """
    checks.known(levels=levels)
    checks.positive_int(levels=levels)
    if levels > 127:
        raise ValueError(
            f"`levels` must be from 1 to 127, got {levels}; a code must fit 8 bits."
        )
    levels = int(levels)  # It may be a number of JAX.
    check_bucket(bucket)

    def scale_of(blocks, counts):
        del counts
        # Squares of the entries themselves could overflow.
        most = invertible(largest(blocks))
        norm = jnp.sqrt(total(jnp.square(blocks * inverse(most)[:, None])))
        # The norm may be infinite, of finite entries; any number above them is one of
        # which they are unbiased fractions.
        scale = most / levels * norm
        return jnp.where(jnp.isinf(scale), jnp.finfo(scale.dtype).max / levels, scale)

    return by_buckets(multiples(levels, scale_of, at_random), bucket)
