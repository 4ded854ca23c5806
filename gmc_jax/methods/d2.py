"""D2, decentralised training over decentralised data."""

from __future__ import annotations

import optax

from gmc_jax.channels.disagreement import disagreement
from gmc_jax.graphs.topologies import lazy
from gmc_jax.graphs.topology import Topology, check_doubly_stochastic, check_mixing
from gmc_jax.transforms._momentum_sgd import momentum_sgd
from gmc_jax.transforms.exact_diffusion import exact_diffusion
from gmc_jax.utils.call_repr import call_repr

_LOWER_BOUND = -1 / 3 + 1e-9  # All eigenvalues must be greater.


@call_repr
def d2(
    learning_rate: optax.ScalarOrSchedule,
    topology: Topology,
    *,
    momentum: float | None = 0.0,
    nesterov: bool = False,
    axis_name: str = "workers",
) -> optax.GradientTransformationExtraArgs:
    """Averages with the neighbours, and adds what past averages changed to each step.

        m_{i,t} = momentum * m_{i,t-1} + g_{i,t}, taken at x_{i,t}
        u_{i,t} = -lr_t m_{i,t}
        x_{i,1} = sum over j of W_ij (x_{j,0} + u_{j,0})
        x_{i,t+1} = sum over j of W_ij (2 x_{j,t} - x_{j,t-1} + u_{j,t} - u_{j,t-1})

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`:

        chain(trace(momentum), lr, exact_diffusion(disagreement(topology)))

    Unlike `d_psgd` it converges to the optimum of the mean loss, whatever data workers
    hold, at any constant rate that is small enough. This is D2 in units of steps. At a
    constant rate it is the paper's form, which has differences of gradients. Under a
    schedule it stays right, and the paper's form does not. The state does not keep the
    last x and u, but the sum of what averages changed, so that rounding errors do not
    accumulate (see `exact_diffusion`).

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments.
      topology: the graph of workers and its mixing weights, from `gmc_jax.topologies`.
        It must be doubly stochastic, symmetric, the same in every round, connect all
        workers, and have no eigenvalue at or below -1/3. `ring(n)` with an even number
        of workers has such an eigenvalue; `lazy(ring(n))` has none.
      momentum: each worker's own, in [0, 1); None means 0. The paper has 0.
      nesterov: whether the momentum is Nesterov's, as in `optax.sgd`.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A transformation from gradients to steps, which stands last in its chain.
      Parameters, momenta and the sums of changes differ between workers;
      `gmc_jax.evaluate` returns the mean of the parameters.

    Raises:
      TypeError: if `topology` is not a topology.
      ValueError: if `topology` is not as described, `momentum` is not in [0, 1), or
        `learning_rate` is a negative or non-finite number.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.d2(0.1, gmc_jax.topologies.lazy(gmc_jax.topologies.ring(8)))

    Guarantees:
      The mean over workers of x moves by the mean of u at each step, under any
      schedule.
      On `topologies.complete` it is D-PSGD that averages after the step.

    References:
      Tang, Lian, Yan, Zhang and Liu, "D2: Decentralized Training over Decentralized
      Data", ICML 2018: Algorithm 1.
    """
    _check(topology)
    return optax.chain(
        momentum_sgd(learning_rate, momentum, nesterov),
        exact_diffusion(disagreement(topology, axis_name=axis_name)),
    )


def _check(topology: Topology) -> None:
    check_doubly_stochastic(topology)
    if len(topology.rounds) > 1:
        raise ValueError(
            f"`topology` must have one round, got {len(topology.rounds)}; D2 corrects "
            "each step for the average of the step before, which must have the same "
            "weights. Use `ring`, `torus`, `complete` or `from_adjacency`."
        )
    if not topology.is_symmetric:
        raise ValueError(
            "`topology` must be symmetric, got weights that differ between the two "
            "directions of an edge; the theory of D2 holds for symmetric weights. Use "
            "`ring`, `torus`, `complete` or `from_adjacency`."
        )
    check_mixing(topology)
    if 2 * topology.mixing[0].diagonal().min() - 1 > _LOWER_BOUND:
        return  # No eigenvalue lies below all circles of Gershgorin.
    smallest = topology.smallest_eigenvalue
    if smallest <= _LOWER_BOUND:
        of_lazy = lazy(topology).smallest_eigenvalue
        raise ValueError(
            "`topology` must have no eigenvalue at or below -1/3, got "
            f"{smallest:.4f}; corrections could grow without bound. Use "
            f"`topologies.lazy(topology)`, whose smallest eigenvalue is {of_lazy:.4f}."
        )
