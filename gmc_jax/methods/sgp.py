"""SGP, stochastic gradient push, and Overlap SGP."""

from __future__ import annotations

import optax

from gmc_jax.channels.gossip import gossip
from gmc_jax.graphs.topology import Topology, check_mixing
from gmc_jax.transforms._momentum_sgd import momentum_sgd
from gmc_jax.transforms.push_sum import balanced_push_sum, push_sum
from gmc_jax.utils.call_repr import call_repr


@call_repr
def sgp(
    learning_rate: optax.ScalarOrSchedule,
    topology: Topology,
    *,
    momentum: float | None = 0.0,
    nesterov: bool = False,
    delay: int = 0,
    axis_name: str = "workers",
) -> optax.GradientTransformationExtraArgs:
    """Steps, then pushes shares of the parameters along a directed graph.

        m_i <- momentum * m_i + g_i, taken at z_i;  x_i = w_i z_i - lr_t m_i
        x_i <- sum over j of P_ij x_j;  w_i <- sum over j of P_ij w_j;  z_i = x_i / w_i

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`:

        chain(trace(momentum), lr, push_sum(gossip(topology, delay=delay)))

    The parameters are z. Weight decay and evaluation see z as well. With a `delay` it
    is Overlap SGP: messages arrive `delay` steps later and no worker waits for them.

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments but `delay`.
      topology: the graph of workers and its mixing weights, from `gmc_jax.topologies`.
        Its columns must sum to 1. It may be directed, irregular (`pushing`) and
        different in each round. The paper's is `one_peer_exponential`.
      momentum: each worker's own, in [0, 1); None means 0. The authors' code has 0.9
        with `nesterov`.
      nesterov: whether the momentum is Nesterov's, as in `optax.sgd`.
      delay: steps until a message arrives, at least 0. The state keeps that many
        messages, so the delay must be known when the step is compiled: name it in
        `static_args` of `optax.inject_hyperparams`.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A transformation from gradients to steps, which stands last in its chain.
      Parameters, weights and momenta differ between workers; `gmc_jax.evaluate` returns
      the plain mean of z, not weighted by w_i as the conserved sum is. With a doubly
      stochastic topology and no delay, all weights stay 1 and are not sent. The state
      keeps them nevertheless, so that it fits any topology with as many workers and the
      same delay (see `gmc_jax.resize`).

    Raises:
      TypeError: if `topology` is not a topology.
      ValueError: if a column of `topology` does not sum to 1, or the topology does not
        lead all workers to agree; if a worker keeps no share of its own, and the
        topology is not doubly stochastic or there is a delay; if `delay` is not a whole
        number of at least 0, `momentum` is not in [0, 1), or `learning_rate` is a
        negative or non-finite number.

    Example:
      >>> import gmc_jax
      >>> topology = gmc_jax.topologies.one_peer_exponential(8)
      >>> tx = gmc_jax.sgp(0.1, topology, momentum=0.9, nesterov=True)

    Guarantees:
      The sum over workers of w_i z_i, plus the numerators in flight, moves by -lr_t
      times the sum of m.
      The sum over workers of w_i, plus the weights in flight, is the number of workers.
      On `topologies.complete`, without a delay, it is SGD on the mean gradient.

    References:
      Assran, Loizou, Ballas and Rabbat, "Stochastic Gradient Push for Distributed Deep
      Learning", ICML 2019: Algorithms 1 and 2.
    """
    channel = gossip(topology, delay=delay, axis_name=axis_name)
    is_weighted = delay > 0 or not topology.is_doubly_stochastic
    if is_weighted and not all(matrix.diagonal().all() for matrix in topology.rounds):
        raise ValueError(
            "`topology` must have positive weights on every diagonal, got a zero; a "
            "worker that keeps no share of its own could reach weight 0. Use "
            "`topologies.lazy(topology)`."
        )
    check_mixing(topology)
    consensus = push_sum(channel) if is_weighted else balanced_push_sum(channel)
    return optax.chain(momentum_sgd(learning_rate, momentum, nesterov), consensus)
