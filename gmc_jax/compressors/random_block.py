"""A contiguous block of coordinates at random, the same on all workers."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gmc_jax.compressors._selection import num_kept
from gmc_jax.compressors._shared_support import shared_indices
from gmc_jax.core import Compressor, Drawn
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def random_block(ratio: float) -> Compressor:
    """Keeps a block of s = max(1, ceil(ratio * d)) adjacent coordinates (RBGS).

    The start of the block is uniform over the d coordinates. A block that passes the
    end of the vector continues at its beginning. All workers draw the same block. So no
    indices are sent, and messages are added without decoding them. No other sparse
    compressor is cheaper.

    Args:
      ratio: the fraction of the d coordinates that is sent, in (0, 1].

    Returns:
      A shared compressor whose message is the s values, beginning at the block's start.

    Raises:
      ValueError: if `ratio` does not lie in (0, 1].

    Guarantees:
      Given the key, the compressor is linear.
      The mean of |lost|^2 over all starts is exactly (1 - s/d) |x|^2.

    References:
      "Random block gradient sparsification" in Xu and Huang, "Detached Error Feedback
      for Distributed SGD with Random Sparsification", ICML 2022; Shi et al.,
      arXiv:1905.12948.
    """
    checks.known(ratio=ratio)
    checks.fraction(ratio=ratio)

    def draw(key: jax.Array, d: int) -> jax.Array:
        start = jax.random.randint(key, (), 0, d, dtype=jnp.int32)
        ahead = jnp.arange(num_kept(ratio, d), dtype=jnp.int32)
        # Where d is close to 2^31, start + ahead would overflow: subtract first.
        return jnp.where(ahead < d - start, start + ahead, ahead - (d - start))

    return shared_indices(draw)._replace(selects=Drawn(draw))
