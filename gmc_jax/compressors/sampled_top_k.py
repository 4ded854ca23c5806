"""Large entries of a vector, by a threshold from a random sample."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp

from gmc_jax.compressors._of_vectors import of_vectors
from gmc_jax.compressors._selection import at_least, largest, magnitude_bits, num_kept
from gmc_jax.compressors._sparse import extract, scatter_sum
from gmc_jax.core import Compressor
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr

# A message has this many slots for each of the s: the upper bound in the code of DGC's
# authors.
SLACK = 1.3


@call_repr
def sampled_top_k(ratio: float, sample: float = 0.01) -> Compressor:
    """Keeps about s = max(1, ceil(ratio * d)) large entries, as DGC and GMC do.

    S is a random sample of the coordinates, one from each of |S| equal stretches of the
    vector. The threshold thr is the ceil(|S| s / d)-th largest |x_j| over j in S. All
    |x_j| >= thr are sent.

    The message has a fixed capacity of ceil(1.3 s) slots. If more entries reach the
    threshold, the smallest are lost, and error feedback keeps them in the residual.
    Slots without an entry are padding.

    Args:
      ratio: about the fraction of the d coordinates that is sent, in (0, 1].
      sample: the fraction of the d coordinates that is sampled, in (0, 1]. At least
        d / s coordinates are sampled, so that one of the s largest is expected among
        them.

    Returns:
      A compressor whose message is `Sparse` with ceil(1.3 s), at most d, slots.

    Raises:
      ValueError: if an argument does not lie in (0, 1].

    Guarantees:
      No entry that is sent has a smaller magnitude than one that is lost.
      With `sample=1` and no ties it keeps the same entries as `top_k(ratio)`.

    References:
      Lin et al., "Deep Gradient Compression", ICLR 2018, section 3.1 and the authors'
      code; Shi et al., arXiv:1905.12948, section 5.1.
    """
    checks.known(ratio=ratio, sample=sample)
    checks.fraction(ratio=ratio, sample=sample)

    def encode(key, x):
        d = x.size
        s = num_kept(ratio, d)
        capacity = min(d, math.ceil(SLACK * s))
        sampled = min(d, max(math.ceil(sample * d), -(-d // s)))
        in_sample = x[_one_of_each_stretch(key, sampled, d)]
        rank = -(-sampled * s // d)
        threshold = jnp.min(magnitude_bits(in_sample[largest(in_sample, rank)]))

        indices = at_least(x, threshold, capacity)
        return extract(x, indices, ascending=True)

    decode = partial(scatter_sum, ascending=True)
    return of_vectors(encode, decode, linear=True)


def _one_of_each_stretch(key: jax.Array, count: int, d: int) -> jax.Array:
    """Draws coordinates [count] of d, one from each of `count` equal stretches."""
    length, longer = divmod(d, count)
    index = jnp.arange(count, dtype=jnp.int32)
    start = index * length + jnp.minimum(index, longer)
    size = length + (index < longer).astype(jnp.int32)
    return start + jax.random.randint(key, (count,), 0, size, dtype=jnp.int32)
