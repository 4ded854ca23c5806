"""Gradient tracking, the sibling of D2."""

from __future__ import annotations

import optax

from gmc_jax.channels.gossip import gossip
from gmc_jax.graphs.topology import Topology, check_doubly_stochastic, check_mixing
from gmc_jax.transforms._momentum_sgd import momentum_sgd
from gmc_jax.transforms.consensus import combine_then_adapt
from gmc_jax.transforms.track_gradients import track_gradients
from gmc_jax.utils.described import described


@described
def gradient_tracking(
    learning_rate: optax.ScalarOrSchedule,
    topology: Topology,
    *,
    momentum: float | None = 0.0,
    nesterov: bool = False,
    axis_name: str = "workers",
) -> optax.GradientTransformationExtraArgs:
    """D-PSGD whose workers step by what they know of the mean gradient.

        y_i <- sum over j of W_ij y_j + g_i - (the last g_i);  y_i = g_i at first
        m_i <- momentum * m_i + y_i
        x_i <- sum over j of W_ij x_j - lr_t m_i

    Like `d2` it comes to rest at the optimum of the mean loss, whatever data workers
    hold and at any constant rate small enough. It sends twice as much, parameters and
    trackers, but asks nothing of the topology's eigenvalues.

    Args:
      learning_rate: a number, a schedule, or an array from `optax.inject_hyperparams`,
        which may inject all numbers.
      topology: who hears whom, of `gmc_jax.topologies`; doubly stochastic, its rounds
        may change.
      momentum: in [0, 1) (None is 0), local.
      nesterov: whether momentum is Nesterov's.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A transformation from gradients to steps, the last in its chain. Parameters,
      trackers and momenta differ between workers; `gmc_jax.evaluate` returns the mean.

    Raises:
      TypeError: if `topology` is no topology.
      ValueError: if `momentum` does not lie in [0, 1), a rate is negative or not
        finite, or the topology is not doubly stochastic, or does not bring all workers
        together.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.gradient_tracking(0.1, gmc_jax.topologies.ring(8))

    Guarantees:
      The mean over workers of y is that of their gradients, and the mean of x moves by
      -lr_t times the mean of m.

    References:
      Di Lorenzo and Scutari, "NEXT", 2016; Nedic, Olshevsky and Shi, "Achieving
      Geometric Convergence for Distributed Optimization over Time-Varying Graphs",
      2017.
    """
    check_doubly_stochastic(topology)
    check_mixing(topology)
    channel = gossip(topology, axis_name=axis_name)
    return optax.chain(
        track_gradients(channel),
        momentum_sgd(learning_rate, momentum, nesterov),
        combine_then_adapt(channel),
    )
