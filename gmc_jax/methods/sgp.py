"""SGP, stochastic gradient push, and its overlapping form."""

from __future__ import annotations

import optax

from gmc_jax.channels.gossip import gossip
from gmc_jax.graphs.topology import Topology, check_mixing
from gmc_jax.transforms._momentum_sgd import momentum_sgd
from gmc_jax.transforms.push_sum import balanced_push_sum, push_sum
from gmc_jax.utils.described import described


@described
def sgp(
    learning_rate: optax.ScalarOrSchedule,
    topology: Topology,
    *,
    momentum: float | None = 0.0,
    nesterov: bool = False,
    delay: int = 0,
    axis_name: str = "workers",
) -> optax.GradientTransformationExtraArgs:
    """Steps, and pushes shares of the parameters to others, who need not push back.

        x_i = w_i z_i - lr_t m_i, and m_i <- momentum * m_i + g_i, taken at z_i
        x_i <- sum over j of P_ij x_j;  w_i <- sum over j of P_ij w_j;  z_i = x_i / w_i

    The parameters are z. With a `delay` it is Overlap SGP: what is pushed arrives so
    many steps later, and nobody waits for it.

    Args:
      learning_rate: a number, a schedule, or an array from `optax.inject_hyperparams`,
        which may inject all numbers but `delay`.
      topology: who hears whom, of `gmc_jax.topologies`; directed, irregular
        (`pushing`), changing from round to round, as long as columns sum to 1. The
        paper's is `one_peer_exponential`.
      momentum: in [0, 1) (None is 0), local; 0.9 with `nesterov` in the authors' code.
      nesterov: whether momentum is Nesterov's.
      delay: steps until a message arrives, at least 0; so many trees are kept. It
        shapes the program: one of `static_args` where others are injected.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A transformation from gradients to steps, the last in its chain. Parameters,
      weights and momenta differ between workers; `gmc_jax.evaluate` returns the mean of
      z, in which all workers count as much (not w_i, as in what is conserved).
      Where the topology is doubly stochastic and there is no delay all weights stay 1,
      and are not sent. They are kept nevertheless, so that the state fits any topology
      of as many workers (see `gmc_jax.resize`) with the same delay.

    Raises:
      ValueError: if `momentum` does not lie in [0, 1), a rate is negative or not
        finite, `delay` is not a whole number of at least 0, the columns of a round do
        not sum to 1, the topology does not bring all workers together, or a worker
        keeps nothing where weights are needed.
      TypeError: if `topology` is no topology.

    Example:
      >>> import gmc_jax
      >>> topology = gmc_jax.topologies.one_peer_exponential(8)
      >>> tx = gmc_jax.sgp(0.1, topology, momentum=0.9, nesterov=True)

    Guarantees:
      The sum over workers of w_i z_i, and what is in flight, moves by -lr_t times the
      sum of m; the sum of w, and what is in flight, is the number of workers.
      On `topologies.complete`, without a delay, it is SGD on the mean gradient.

    References:
      Assran, Loizou, Ballas and Rabbat, "Stochastic Gradient Push for Distributed Deep
      Learning", ICML 2019: Algorithms 1 and 2.
    """
    channel = gossip(topology, delay=delay, axis_name=axis_name)
    weighs = delay > 0 or not topology.is_doubly_stochastic
    if weighs and not all(matrix.diagonal().all() for matrix in topology.rounds):
        raise ValueError(
            "`topology` must leave every worker a share of its own, or its weight may "
            "become 0, but has zeros on a diagonal. Use `topologies.lazy(topology)`."
        )
    check_mixing(topology)
    consensus = push_sum(channel) if weighs else balanced_push_sum(channel)
    return optax.chain(momentum_sgd(learning_rate, momentum, nesterov), consensus)
