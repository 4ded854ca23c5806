"""The channel that averages differences to neighbours."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax

from gmc_jax.channels._neighbours import (
    check_workers,
    costs,
    in_turn,
    next_call,
    receive,
    weigh,
)
from gmc_jax.channels.gossip import GossipState
from gmc_jax.core import Channel
from gmc_jax.graphs.topology import Topology, check_doubly_stochastic
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.trees import upcast


@call_repr
def disagreement(topology: Topology, *, axis_name: str = "workers") -> Channel:
    """Averages differences to neighbours: mean_i = sum_j W_ij (tree_j - tree_i).

    This is what `gossip` would add to the tree, and it sends as much. The differences
    are taken first and then summed, so the mean is exactly 0 where workers agree. With
    a symmetric topology one worker loses what another gains, up to the rounding of the
    differences.

    Args:
      topology: who receives from whom; doubly stochastic. See `gmc_jax.topologies`.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A channel with `GossipState`. Its means differ between workers.

    Raises:
      NameError: from `average` where no such axis is in scope.
      TypeError: if `topology` is no topology; from `init` and `average` if a leaf is
        not floating.
      ValueError: if the rows or columns of a round do not sum to 1; from `average` if
        the axis has another number of workers than the topology.

    Guarantees:
      The law of channels: `mean` is zero on average, and `lost` is the tree.

    References:
      Yuan, Ying, Zhao and Sayed, "Exact Diffusion for Distributed Optimization and
      Learning", 2019.
    """
    check_doubly_stochastic(topology)
    checks.axis(axis_name=axis_name)
    matchings = topology.matchings

    def init(params):
        checks.floating(params)
        return GossipState(jnp.zeros((), jnp.int32), ())

    def average(tree, state):
        check_workers(topology, axis_name, "disagreement")
        checks.floating(tree)
        own = upcast(tree)

        def mix(now: int):
            # Zeros that depend on the worker's index, so that the layout says for every
            # topology that means differ between workers.
            total = weigh(own, np.zeros(topology.workers), axis_name)
            for matching in matchings[now]:
                apart = optax.tree.sub(receive(tree, matching, axis_name), own)
                apart = weigh(apart, matching.weights, axis_name)
                total = optax.tree.add(total, apart)
            return total

        mean = in_turn(len(matchings), mix, state.step)
        step = next_call(state.step, len(matchings))
        return mean, own, GossipState(step, ())

    bits, entries = costs(topology)
    return Channel(init, average, bits, axis_name, entries)
