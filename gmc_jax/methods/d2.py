"""D2, decentralised training over decentralised data."""

from __future__ import annotations

import optax

from gmc_jax.channels.disagreement import disagreement
from gmc_jax.graphs.topologies import lazy
from gmc_jax.graphs.topology import Topology, check_doubly_stochastic, check_mixing
from gmc_jax.transforms._momentum_sgd import momentum_sgd
from gmc_jax.transforms.exact_diffusion import exact_diffusion
from gmc_jax.utils.described import described

_SMALLEST = -1 / 3 + 1e-9  # What all eigenvalues must be larger than.


@described
def d2(
    learning_rate: optax.ScalarOrSchedule,
    topology: Topology,
    *,
    momentum: float | None = 0.0,
    nesterov: bool = False,
    axis_name: str = "workers",
) -> optax.GradientTransformationExtraArgs:
    """Averages with the neighbours and gives back at each step what averaging took.

        u_i,t = -lr_t m_i,t, and m_i,t <- momentum * m_i,t-1 + g_i,t, taken at x_i,t
        x_i,1 = sum over j of W_ij (x_j,0 + u_j,0)
        x_i,t+1 = sum over j of W_ij (2 x_j,t - x_j,t-1 + u_j,t - u_j,t-1)

    Unlike `d_psgd` it comes to rest at the optimum of the mean loss, whatever data
    workers hold and at any constant rate that is small enough. This is the form in
    units of steps; at a constant rate it is the paper's, of differences of gradients,
    and under a schedule it stays right where that one does not. What is remembered is
    not the last x and u but the sum of what neighbours changed (see `exact_diffusion`),
    which rounding does not lead astray.

    Args:
      learning_rate: a number, a schedule, or an array from `optax.inject_hyperparams`,
        which may inject all numbers.
      topology: who hears whom, of `gmc_jax.topologies`: the same at every step,
        connected, symmetric, with no eigenvalue at or below -1/3. `ring(n)` of an even
        number of workers has one there; `lazy(ring(n))` has not.
      momentum: in [0, 1) (None is 0), local; 0 in the paper.
      nesterov: whether momentum is Nesterov's.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A transformation from gradients to steps, the last in its chain. Parameters, the
      sums of what neighbours changed and momenta differ between workers;
      `gmc_jax.evaluate` returns the mean.

    Raises:
      ValueError: if `momentum` does not lie in [0, 1), a rate is negative or not
        finite, or the topology is not as described.
      TypeError: if `topology` is no topology.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.d2(0.1, gmc_jax.topologies.lazy(gmc_jax.topologies.ring(8)))

    Guarantees:
      The mean over workers of x moves by the mean of u at each step, under any
      schedule.
      On `topologies.complete` it is `d_psgd` that averages after the step.

    References:
      Tang, Lian, Yan, Zhang and Liu, "D2: Decentralized Training over Decentralized
      Data", ICML 2018, Algorithm 1.
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
            "`topology` must be the same at every step, or what averaging took at one "
            f"would be given back to others, but has {len(topology.rounds)} rounds. "
            "Use `ring`, `torus`, `complete` or `from_adjacency`."
        )
    if not topology.is_symmetric:
        raise ValueError(
            "`topology` must be symmetric: workers must take of each other what they "
            "give. Use `ring`, `torus`, `complete` or `from_adjacency`."
        )
    check_mixing(topology)
    smallest = topology.smallest_eigenvalue
    if smallest <= _SMALLEST:
        instead = lazy(topology).smallest_eigenvalue
        raise ValueError(
            "`topology` must have no eigenvalue at or below -1/3, or corrections grow "
            f"for ever, but its smallest one is {smallest:.4f}. Use "
            f"`topologies.lazy(topology)`, whose smallest one is {instead:.4f}."
        )
