"""Coordinates at random, the same on all workers."""

from __future__ import annotations

import jax

from gmc_jax.compressors._permutation import first_permuted
from gmc_jax.compressors._selection import num_kept
from gmc_jax.compressors._shared_support import shared_indices
from gmc_jax.core import Compressor, Drawn
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def random_k(ratio: float) -> Compressor:
    """Keeps s = max(1, ceil(ratio * d)) distinct coordinates drawn at random.

    They are the first s of a random permutation of the coordinates, which is computed
    for them alone. So the time of a draw grows with s, not with d. A key draws other
    coordinates than it did in version 0.1, which drew random bits for each of the d.
    All workers draw the same coordinates, so no indices are sent.

    Args:
      ratio: the fraction of the d coordinates that is sent, in (0, 1].

    Returns:
      A shared compressor whose message is the s values, in the order drawn.

    Raises:
      ValueError: if `ratio` does not lie in (0, 1].

    Guarantees:
      Given the key, the compressor is linear.
      Every coordinate is equally likely, so over the draws E|lost|^2 = (1 - s/d) |x|^2.
      Pairs of coordinates are nearly equally likely.

    References:
      Stich, Cordonnier and Jaggi, "Sparsified SGD with Memory", NeurIPS 2018.
    """
    checks.known(ratio=ratio)
    checks.fraction(ratio=ratio)

    def draw(key: jax.Array, d: int) -> jax.Array:
        return first_permuted(key, d, num_kept(ratio, d))

    return shared_indices(draw)._replace(selects=Drawn(draw))
