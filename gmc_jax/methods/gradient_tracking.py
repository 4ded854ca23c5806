"""Gradient tracking, D-PSGD along an estimate of the mean gradient."""

from __future__ import annotations

import optax

from gmc_jax.channels.gossip import gossip
from gmc_jax.graphs.topology import Topology, check_doubly_stochastic, check_mixing
from gmc_jax.transforms._momentum_sgd import momentum_sgd
from gmc_jax.transforms.consensus import combine_then_adapt
from gmc_jax.transforms.track_gradients import track_gradients
from gmc_jax.utils.call_repr import call_repr


@call_repr
def gradient_tracking(
    learning_rate: optax.ScalarOrSchedule,
    topology: Topology,
    *,
    momentum: float | None = 0.0,
    nesterov: bool = False,
    axis_name: str = "workers",
) -> optax.GradientTransformationExtraArgs:
    """D-PSGD whose workers step along trackers of the mean gradient.

        y_i <- sum over j of W_ij y_j + g_i - (the last g_i);  the first y_i is g_i
        m_i <- momentum * m_i + y_i
        x_i <- sum over j of W_ij x_j - lr_t m_i

    The chain, where `channel` is `gossip(topology)` and `lr` is
    `scale_by_learning_rate(learning_rate)`:

        track, combine = track_gradients(channel), combine_then_adapt(channel)
        chain(track, trace(momentum), lr, combine)

    Like `d2` it converges to the optimum of the mean loss, whatever data workers hold,
    at any constant rate that is small enough. It sends twice as much as `d2`,
    parameters and trackers, but needs no bound on the topology's eigenvalues.

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments.
      topology: the graph of workers and its mixing weights, from `gmc_jax.topologies`.
        It must be doubly stochastic and connect all workers; its rounds may differ.
      momentum: each worker's own, in [0, 1); None means 0.
      nesterov: whether the momentum is Nesterov's, as in `optax.sgd`.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A transformation from gradients to steps, which stands last in its chain.
      Parameters, trackers and momenta differ between workers; `gmc_jax.evaluate`
      returns the mean of the parameters.

    Raises:
      TypeError: if `topology` is not a topology.
      ValueError: if `topology` is not doubly stochastic or does not lead all workers to
        agree, `momentum` is not in [0, 1), or `learning_rate` is a negative or
        non-finite number.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.gradient_tracking(0.1, gmc_jax.topologies.ring(8))

    Guarantees:
      The mean over workers of y is the mean of their gradients.
      The mean over workers of x moves by -lr_t times the mean of m.

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
