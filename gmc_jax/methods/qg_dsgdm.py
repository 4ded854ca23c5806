"""QG-DSGDm, decentralised SGD with quasi-global momentum."""

from __future__ import annotations

import optax

from gmc_jax.channels.gossip import gossip
from gmc_jax.graphs.topology import Topology, check_doubly_stochastic, check_mixing
from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms._momentum import momentum_value
from gmc_jax.transforms.consensus import adapt_then_combine
from gmc_jax.transforms.quasi_global_momentum import quasi_global_momentum
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def qg_dsgdm(
    learning_rate: optax.ScalarOrSchedule,
    topology: Topology,
    *,
    momentum: float | None = 0.9,
    buffer_decay: float = 0.9,
    nesterov: bool = False,
    axis_name: str = "workers",
) -> optax.GradientTransformationExtraArgs:
    """Takes a step with a momentum of past moves, and averages with the neighbours.

        m_i = momentum * v_i + g_i, taken at x_i
            (Nesterov's: g_i + momentum * (momentum * v_i + g_i))
        x'_i = sum over j of W_ij (x_j - lr_t m_j)
        v_i <- buffer_decay * v_i + (1 - buffer_decay) * (x_i - x'_i) / lr_t
        x_i <- x'_i

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`:

        quasi_global_momentum(
            chain(lr, adapt_then_combine(gossip(topology))), momentum, buffer_decay, lr)

    A worker's own momentum pulls it towards its own data. v follows what the worker and
    its neighbours did together, so it is close to the momentum of the mean where
    workers hold different data. It sends what `d_psgd` sends. Where lr_t = 0, v decays
    and nothing is added to it. Weight decay stands in front of it.

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments.
      topology: the graph of workers and its mixing weights, from `gmc_jax.topologies`.
        It must be doubly stochastic and connect all workers.
      momentum: beta in the paper, in [0, 1); None means 0.
      buffer_decay: mu in the paper, in [0, 1); the paper has it equal to `momentum`. In
        the authors' code it is 0.9 unless said otherwise, whatever the momentum.
      nesterov: whether the momentum is Nesterov's, as in `optax.sgd`.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A transformation from gradients to steps, which stands last in its chain.
      Parameters and momenta differ between workers; `gmc_jax.evaluate` returns the mean
      of the parameters.

    Raises:
      TypeError: if `topology` is not a topology.
      ValueError: if `topology` is not doubly stochastic or does not lead all workers to
        agree, `momentum` or `buffer_decay` is not in [0, 1), or `learning_rate` is a
        negative or non-finite number.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.qg_dsgdm(0.1, gmc_jax.topologies.ring(8))

    Guarantees:
      The mean over workers of x moves by -lr_t times the mean of m.
      With `momentum = 0` it is D-PSGD that averages after the step.
      One worker, or all workers on `topologies.complete`, follow quasi-hyperbolic
        momentum of the mean gradient g: without `nesterov`
        v <- (mu + (1 - mu) b) v + (1 - mu) g, where mu is `buffer_decay`.

    References:
      Lin, Karimireddy, Stich and Jaggi, "Quasi-Global Momentum: Accelerating
      Decentralized Deep Learning on Heterogeneous Data", ICML 2021: Algorithm 1.
    """
    check_doubly_stochastic(topology)
    check_mixing(topology)
    checks.momentum(momentum=momentum)
    checks.learning_rate(learning_rate=learning_rate)
    return quasi_global_momentum(
        optax.chain(
            descent(learning_rate),
            adapt_then_combine(gossip(topology, axis_name=axis_name)),
        ),
        momentum_value(momentum),
        buffer_decay,
        learning_rate,
        nesterov=nesterov,
    )
