"""D-PSGD, decentralised parallel SGD: workers average with their neighbours."""

from __future__ import annotations

import optax

from gmc_jax.channels.gossip import gossip
from gmc_jax.graphs.topology import Topology, check_doubly_stochastic, check_mixing
from gmc_jax.transforms._momentum_sgd import momentum_sgd
from gmc_jax.transforms.consensus import combine_then_adapt
from gmc_jax.utils.described import described


@described
def d_psgd(
    learning_rate: optax.ScalarOrSchedule,
    topology: Topology,
    *,
    momentum: float | None = 0.0,
    nesterov: bool = False,
    axis_name: str = "workers",
) -> optax.GradientTransformationExtraArgs:
    """Averages parameters with the neighbours', and takes a step of one's own.

        m_i <- momentum * m_i + g_i, taken at x_i
        x_i <- sum over j of W_ij x_j - lr_t m_i

    Neighbours' parameters and the gradient do not wait for each other. Codes often
    average after the step instead: `chain(..., adapt_then_combine(gossip(topology)))`.
    Where workers hold different data and the rate is constant they come to rest away
    from the optimum, the further the larger the rate; `d2` does not.

    Args:
      learning_rate: a number, a schedule, or an array from `optax.inject_hyperparams`,
        which may inject all numbers.
      topology: who hears whom, of `gmc_jax.topologies`; doubly stochastic.
      momentum: in [0, 1) (None is 0), local; 0 in the paper.
      nesterov: whether momentum is Nesterov's.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A transformation from gradients to steps, the last in its chain. Parameters and
      momenta differ between workers; `gmc_jax.evaluate` returns the mean.

    Raises:
      ValueError: if `momentum` does not lie in [0, 1), a rate is negative or not
        finite, or the topology is not doubly stochastic, or does not bring all workers
        together.
      TypeError: if `topology` is no topology.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.d_psgd(0.1, gmc_jax.topologies.ring(8))

    Guarantees:
      The mean over workers of x moves by -lr_t times the mean of m.

    References:
      Lian et al., "Can Decentralized Algorithms Outperform Centralized Algorithms?",
      NeurIPS 2017, Algorithm 1.
    """
    check_doubly_stochastic(topology)
    check_mixing(topology)
    return optax.chain(
        momentum_sgd(learning_rate, momentum, nesterov),
        combine_then_adapt(gossip(topology, axis_name=axis_name)),
    )
