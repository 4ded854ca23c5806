"""D-PSGD, decentralised parallel SGD."""

from __future__ import annotations

import optax

from gmc_jax.channels.gossip import gossip
from gmc_jax.graphs.topology import Topology, check_doubly_stochastic, check_mixing
from gmc_jax.transforms._momentum_sgd import momentum_sgd
from gmc_jax.transforms.consensus import combine_then_adapt
from gmc_jax.utils.call_repr import call_repr


@call_repr
def d_psgd(
    learning_rate: optax.ScalarOrSchedule,
    topology: Topology,
    *,
    momentum: float | None = 0.0,
    nesterov: bool = False,
    axis_name: str = "workers",
) -> optax.GradientTransformationExtraArgs:
    """Averages each worker's parameters with its neighbours' and adds its own step.

        m_i <- momentum * m_i + g_i, taken at x_i
        x_i <- sum over j of W_ij x_j - lr_t m_i

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`:

        chain(trace(momentum), lr, combine_then_adapt(gossip(topology)))

    An average does not need the gradients, so the two may be computed at the same time.
    Many codes average after the step instead: `chain(...,
    adapt_then_combine(gossip(topology)))`. Where workers hold different data and the
    rate is constant, D-PSGD converges to a point away from the optimum; the larger the
    rate, the further away. `d2` and `gradient_tracking` converge to the optimum.

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments.
      topology: the graph of workers and its mixing weights, from `gmc_jax.topologies`.
        It must be doubly stochastic and connect all workers.
      momentum: each worker's own, in [0, 1); None means 0. The paper has 0.
      nesterov: whether the momentum is Nesterov's, as in `optax.sgd`.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A transformation from gradients to steps, which stands last in its chain.
      Parameters and momenta differ between workers; `gmc_jax.evaluate` returns the mean
      of the parameters.

    Raises:
      TypeError: if `topology` is not a topology.
      ValueError: if `topology` is not doubly stochastic or does not lead all workers to
        agree, `momentum` is not in [0, 1), or `learning_rate` is a negative or
        non-finite number.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.d_psgd(0.1, gmc_jax.topologies.ring(8))

    Guarantees:
      The mean over workers of x moves by -lr_t times the mean of m.

    References:
      Lian, Zhang, Zhang, Hsieh, Zhang and Liu, "Can Decentralized Algorithms Outperform
      Centralized Algorithms?", NeurIPS 2017: Algorithm 1.
    """
    check_doubly_stochastic(topology)
    check_mixing(topology)
    return optax.chain(
        momentum_sgd(learning_rate, momentum, nesterov),
        combine_then_adapt(gossip(topology, axis_name=axis_name)),
    )
