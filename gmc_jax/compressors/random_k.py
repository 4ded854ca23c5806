"""Coordinates at random, the same on all workers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from gmc_jax.compressors._selection import largest, num_kept
from gmc_jax.compressors._shared_support import shared_indices
from gmc_jax.core import Compressor
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def random_k(ratio: float) -> Compressor:
    """Keeps s = max(1, ceil(ratio * d)) distinct coordinates drawn at random.

    Each coordinate draws 31 random bits, and the s coordinates with the largest draws
    are kept. All sets of s coordinates are equally likely, except that ties go to the
    lowest index. All workers draw the same coordinates, so no indices are sent. A call
    draws d random numbers, where `random_block` draws one.

    Args:
      ratio: the fraction of the d coordinates that is sent, in (0, 1].

    Returns:
      A shared compressor whose message is the s values, in ascending order of index.

    Raises:
      ValueError: if `ratio` does not lie in (0, 1].

    Guarantees:
      Given the key, the compressor is linear.
      Over the draws, E|lost|^2 = (1 - s/d) |x|^2.

    References:
      Stich, Cordonnier and Jaggi, "Sparsified SGD with Memory", NeurIPS 2018.
    """
    checks.known(ratio=ratio)
    checks.fraction(ratio=ratio)

    def draw(key: jax.Array, d: int) -> jax.Array:
        draws = jax.random.bits(key, (d,), jnp.uint32) >> 1
        return largest(lax.bitcast_convert_type(draws, jnp.float32), num_kept(ratio, d))

    return shared_indices(draw)
