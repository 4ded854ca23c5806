"""The largest entries of a vector, by a threshold from a random sample."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

from gmc_jax.compressors._selection import (
    at_least,
    extract,
    magnitude_bits,
    num_kept,
    scatter_sum,
)
from gmc_jax.core import Compressor
from gmc_jax.utils import checks
from gmc_jax.utils.described import described

# How far the message may outgrow s: the upper bound of the authors of DGC.
SLACK = 1.3


@described
def sampled_top_k(ratio: float, sample: float = 0.01) -> Compressor:
    """Keeps about s = max(1, ceil(ratio * d)) large entries, as DGC and GMC do.

    With S a random sample of the coordinates, thr is the ceil(|S| s / d)-th largest
    |x_j| over j in S, and all |x_j| >= thr are sent. The sample takes one coordinate at
    random from each of |S| equal stretches of the vector. The message has a fixed
    capacity of ceil(1.3 s) slots; of what is selected beyond it the smallest are lost
    (and so stay owed by error feedback), and slots without an entry are padding.

    Args:
      ratio: the fraction of the d coordinates to aim at, in (0, 1].
      sample: the fraction of the d coordinates that is looked at, in (0, 1]. At least
        d / s are, so that one is expected above the threshold.

    Returns:
      A compressor whose message is `Sparse` with ceil(1.3 s), at most d, slots.

    Raises:
      ValueError: if an argument does not lie in (0, 1].

    Guarantees:
      What is sent is no smaller than what is not.
      With `sample=1` and no ties it is `top_k(ratio)`.

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
        looked_at = min(d, max(math.ceil(sample * d), -(-d // s)))
        seen = jnp.abs(x[_one_of_each_stretch(key, looked_at, d)])
        rank = -(-looked_at * s // d)
        # The minimum, not the last: where XLA sees a slice, it sorts all that was seen.
        threshold = jnp.min(magnitude_bits(lax.top_k(seen, rank)[0]))

        return extract(x, at_least(magnitude_bits(x), threshold, capacity))

    return Compressor(encode, scatter_sum, linear=True)


def _one_of_each_stretch(key: jax.Array, count: int, d: int) -> jax.Array:
    """Distinct coordinates [count] of d, one at random from each equal stretch."""
    length, longer = divmod(d, count)
    index = jnp.arange(count, dtype=jnp.int32)
    start = index * length + jnp.minimum(index, longer)
    size = length + (index < longer).astype(jnp.int32)
    return start + jax.random.randint(key, (count,), 0, size, dtype=jnp.int32)
