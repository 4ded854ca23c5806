"""The entries of a vector whose magnitude reaches a fixed level."""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp

from gmc_jax.compressors._of_vectors import of_vectors
from gmc_jax.compressors._selection import at_least, magnitude_bits, num_kept
from gmc_jax.compressors._sparse import extract, scatter_sum
from gmc_jax.core import Compressor, Largest
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def threshold(level: float, capacity: float) -> Compressor:
    """Keeps all |x_j| >= level that fit into s = max(1, ceil(capacity * d)) slots.

    The error of each entry is bounded: with error feedback every magnitude in a
    worker's residual is less than `level`, unless more entries reach the level than
    there are slots. Then the largest are sent, and the others stay in the residual. The
    message has a fixed size: slots without an entry are padding and are sent too.

    Args:
      level: the smallest magnitude that is sent, finite and greater than 0, in the
        units of x. It is rounded to the dtype of x.
      capacity: the number of slots, as a fraction of the d coordinates, in (0, 1].

    Returns:
      A compressor whose message is `Sparse` with s slots; an unused one holds the index
      d and the value 0.

    Raises:
      ValueError: if `level` is not finite and greater than 0, or `capacity` does not
        lie in (0, 1].

    Guarantees:
      Every entry that is sent reaches the level.
      If all entries that reach the level fit, none of them is lost. Otherwise the
      smallest of them are lost.
      With a level that every entry reaches, it keeps what `top_k(capacity)` keeps.
      Scaling x and the level by a positive number scales the message and `lost`.

    References:
      Strom, "Scalable Distributed DNN Training Using Commodity GPU Cloud Computing",
      Interspeech 2015 (which sends the sign of the level in place of the value);
      the hard threshold of Dutta et al., "On the Discrepancy between the Theoretical
      Analysis and Practical Implementations of Compressed Communication for Distributed
      Deep Learning", AAAI 2020.
    """
    checks.positive(level=level)
    checks.known(capacity=capacity)
    checks.fraction(capacity=capacity)

    def encode(key, x):
        del key
        least = magnitude_bits(jnp.asarray(level, x.dtype))
        indices = at_least(x, least, num_kept(capacity, x.size))
        return extract(x, indices, ascending=True)

    selects = Largest(partial(num_kept, capacity), level)
    decode = partial(scatter_sum, ascending=True)
    return of_vectors(encode, decode, selects=selects, linear=True)
