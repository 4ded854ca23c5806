"""CHOCO-SGD, gossip of compressed differences."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._momentum_sgd import momentum_sgd
from gmc_jax.transforms.consensus import adapt_then_combine
from gmc_jax.utils.call_repr import call_repr


@call_repr
def choco_sgd(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    momentum: float | None = 0.0,
    nesterov: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Takes a step, sends what changed, compressed, and moves to the neighbours.

        m_i <- momentum * m_i + g_i, taken at x_i;  y_i = x_i - lr_t m_i
        q_i = C(y_i - h_i);  h_j <- h_j + q_j, of this worker and its neighbours
        x_i <- y_i + consensus_step * sum over j of W_ij (h_j - h_i)

    h is x_hat in the paper. The chain, where `lr` is
    `scale_by_learning_rate(learning_rate)`:

        chain(trace(momentum), lr, adapt_then_combine(channel))

    The channel is `gossip_differences(topology, compressor, consensus_step)`, the order
    above, which is the paper's. Through `gossip_differences_overlapped` workers move
    first, by the h of the step before, and send afterwards, as the authors' code does:
    then messages travel while the next gradient is computed.

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments.
      channel: averages the parameters with the neighbours: one of the two above, whose
        topology connects all workers.
      momentum: each worker's own, in [0, 1); None means 0. The paper has 0; the second
        paper has 0.9 for deep learning.
      nesterov: whether the momentum is Nesterov's, as in `optax.sgd`.

    Returns:
      A transformation from gradients to steps, which stands last in its chain.
      Parameters, momenta and estimates differ between workers; `gmc_jax.evaluate`
      returns the mean of the parameters.

    Raises:
      TypeError: if `channel` is not a channel.
      ValueError: if `momentum` is not in [0, 1), or `learning_rate` is a negative or
        non-finite number.

    Example:
      >>> import gmc_jax
      >>> ring, compressor = gmc_jax.topologies.ring(8), gmc_jax.top_k(0.1)
      >>> tx = gmc_jax.choco_sgd(0.1, gmc_jax.gossip_differences(ring, compressor, 0.2))

    Guarantees:
      The mean over workers of x moves by -lr_t times the mean of m, whatever the
      compressor.
      Through `gossip_differences(topology, dense(), 1.0)` it is D-PSGD that averages
      after the step.

    References:
      Koloskova, Stich and Jaggi, "Decentralized Stochastic Optimization and Gossip
      Algorithms with Compressed Communication", ICML 2019: Algorithm 2; Koloskova, Lin,
      Stich and Jaggi, "Decentralized Deep Learning with Arbitrary Communication
      Compression", ICLR 2020.
    """
    return optax.chain(
        momentum_sgd(learning_rate, momentum, nesterov), adapt_then_combine(channel)
    )
