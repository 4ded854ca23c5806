"""MATCHA, decentralised SGD over matchings that are drawn at random."""

from __future__ import annotations

import optax

from gmc_jax.channels.random_gossip import random_gossip
from gmc_jax.graphs.random_topology import RandomTopology
from gmc_jax.transforms._momentum_sgd import momentum_sgd
from gmc_jax.transforms.consensus import adapt_then_combine
from gmc_jax.utils.call_repr import call_repr


@call_repr
def matcha(
    learning_rate: optax.ScalarOrSchedule,
    topology: RandomTopology,
    *,
    momentum: float | None = 0.0,
    nesterov: bool = False,
    axis_name: str = "workers",
) -> optax.GradientTransformationExtraArgs:
    """Takes a step, and averages with the neighbours in matchings drawn at random.

        m_i <- momentum * m_i + g_i, taken at x_i;  y_i = x_i - lr_t m_i
        x_i <- sum over j of W_ij y_j,  W = I - alpha * sum over active j of L_j

    L_j is the Laplacian of matching j, which is active with the probability p_j, anew
    in each step and alike on all workers. The chain, where `lr` is
    `scale_by_learning_rate(learning_rate)`:

        chain(trace(momentum), lr, adapt_then_combine(random_gossip(topology)))

    It sends the share `budget` of what D-PSGD sends over the same graph, and workers
    agree almost as fast: p favours the matchings that connect the graph.

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments.
      topology: `topologies.matcha(adjacency, budget)`, which solves for p and alpha.
      momentum: each worker's own, in [0, 1); None means 0. The paper has 0.
      nesterov: whether the momentum is Nesterov's, as in `optax.sgd`.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A transformation from gradients to steps, which stands last in its chain.
      Parameters and momenta differ between workers; `gmc_jax.evaluate` returns the mean
      of the parameters.

    Raises:
      TypeError: if `topology` is not drawn at random.
      ValueError: if `momentum` is not in [0, 1), or `learning_rate` is a negative or
        non-finite number.

    Example:
      >>> import gmc_jax
      >>> ring = gmc_jax.topologies.ring(8)
      >>> topology = gmc_jax.topologies.matcha(ring.edges, budget=0.5)
      >>> tx = gmc_jax.matcha(0.1, topology)

    Guarantees:
      The mean over workers of x moves by -lr_t times the mean of m.
      With `budget=1` it is D-PSGD that averages after the step, over the fixed matrix
        I - alpha L, with L the Laplacian of the graph.

    References:
      Wang, Sahu, Yang, Joshi and Kar, "MATCHA: Speeding Up Decentralized SGD via
      Matching Decomposition Sampling", 2019.
    """
    return optax.chain(
        momentum_sgd(learning_rate, momentum, nesterov),
        adapt_then_combine(random_gossip(topology, axis_name=axis_name)),
    )
