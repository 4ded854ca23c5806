"""DCD-PSGD, decentralised SGD that compresses the moves of the parameters."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._momentum_sgd import momentum_sgd
from gmc_jax.transforms.difference_compression import difference_compression
from gmc_jax.utils.call_repr import call_repr


@call_repr
def dcd_psgd(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    momentum: float | None = 0.0,
    nesterov: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Averages with the neighbours, steps, and moves by the compressed difference.

        m_i <- momentum * m_i + g_i, taken at x_i
        z_i = sum over j of W_ij x_j - lr_t m_i - x_i
        x_i <- x_i + C(z_i), of this worker and in its neighbours' copies

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`:

        chain(trace(momentum), lr, difference_compression(channel))

    No copies of neighbours are kept, but the sum of W_ij (x_j - x_i), which one vector
    holds. The theory needs an unbiased compressor that loses little. A compressor that
    loses most of a vector can let workers diverge: take `choco_sgd` for it.

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments.
      channel: averages the compressed moves: `compressed_gossip(topology, compressor)`,
        whose topology connects all workers.
      momentum: each worker's own, in [0, 1); None means 0. The paper has 0.
      nesterov: whether the momentum is Nesterov's, as in `optax.sgd`.

    Returns:
      A transformation from gradients to steps, which stands last in its chain.
      Parameters, momenta and the sums of differences differ between workers;
      `gmc_jax.evaluate` returns the mean of the parameters.

    Raises:
      TypeError: if `channel` is not a channel.
      ValueError: if `momentum` is not in [0, 1), or `learning_rate` is a negative or
        non-finite number.

    Example:
      >>> import gmc_jax
      >>> channel = gmc_jax.compressed_gossip(
      ...     gmc_jax.topologies.ring(8), gmc_jax.top_k(0.5)
      ... )
      >>> tx = gmc_jax.dcd_psgd(0.1, channel)

    Guarantees:
      The mean over workers of x moves by the mean of C(z).
      Through `compressed_gossip(topology, dense())` it is `d_psgd`.

    References:
      Tang, Gan, Zhang, Zhang and Liu, "Communication Compression for Decentralized
      Training", NeurIPS 2018: Algorithm 1.
    """
    return optax.chain(
        momentum_sgd(learning_rate, momentum, nesterov),
        difference_compression(channel),
    )
