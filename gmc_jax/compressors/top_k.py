"""The largest entries of a vector."""

from __future__ import annotations

from functools import partial

from gmc_jax.compressors._of_vectors import of_vectors
from gmc_jax.compressors._selection import largest, num_kept
from gmc_jax.compressors._sparse import extract, scatter_sum
from gmc_jax.core import Compressor, Largest
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def top_k(ratio: float) -> Compressor:
    """Keeps the s = max(1, ceil(ratio * d)) entries of largest magnitude.

    The selection is exact and deterministic. Ties go to the lowest index. NaN counts as
    the largest.

    Args:
      ratio: the fraction of the d coordinates that is sent, in (0, 1].

    Returns:
      A compressor whose message is `Sparse`: s values and s indices, ascending.

    Raises:
      ValueError: if `ratio` does not lie in (0, 1].

    Guarantees:
      At least s / d of the energy is sent: |lost|^2 <= (1 - s/d) |x|^2.
      The entries kept are those of `jax.lax.top_k(abs(x), s)`.
      Scaling x by a positive number scales the message and `lost` with it.

    References:
      Aji and Heafield, "Sparse Communication for Distributed Gradient Descent", 2017;
      the top-s of Shi et al., "Global Momentum Compression for Sparse Communication in
      Distributed Learning", arXiv:1905.12948.
    """
    checks.known(ratio=ratio)
    checks.fraction(ratio=ratio)

    def encode(key, x):
        del key
        indices = largest(x, num_kept(ratio, x.size))
        return extract(x, indices, ascending=True)

    selects = Largest(partial(num_kept, ratio))
    decode = partial(scatter_sum, ascending=True)
    return of_vectors(encode, decode, selects=selects, linear=True)
