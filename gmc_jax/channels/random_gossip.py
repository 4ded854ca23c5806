"""The channel in which neighbours average in matchings that are drawn at random."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from gmc_jax.channels._calls import call
from gmc_jax.channels._neighbours import check_workers, costs_of_copies, weigh
from gmc_jax.channels.disagreement import disagreement
from gmc_jax.core import Channel, Tree
from gmc_jax.graphs.random_topology import RandomTopology, check_random
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.trees import upcast, zeros_to_accumulate


class RandomGossipState(NamedTuple):
    """The state of gossip at random.

    Attributes:
      step: int32, calls so far; the same on all workers.
    """

    step: jax.Array


@call_repr
def random_gossip(topology: RandomTopology, *, axis_name: str = "workers") -> Channel:
    """Averages with the neighbours in those matchings that a call draws.

        mean_i = tree_i + weight * sum over active matchings of (tree_j - tree_i)

    where j is the partner of worker i in the matching. All workers draw alike, from
    `fold_in(jax.random.key(topology.seed), calls so far)`: matching m is active if
    entry m of `jax.random.uniform` is below its probability. Each matching is a
    conditional, so only active ones send.

    Args:
      topology: `topologies.matcha(adjacency, budget)`.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A channel with `RandomGossipState`. Its means differ between workers. Its bits are
      those of a call in which all matchings are active; `message_bits` of a method
      counts those that are.

    Raises:
      NameError: from `average` where no such axis is in scope.
      TypeError: if `topology` is not drawn at random; from `init` and `average` if a
        leaf is not floating.
      ValueError: from `average` if the axis has another number of workers than the
        topology.

    Guarantees:
      The law of channels, and `lost` is zero.
      A call without an active matching returns the tree, bit for bit, and sends
      nothing.

    References:
      Wang, Sahu, Yang, Joshi and Kar, "MATCHA: Speeding Up Decentralized SGD via
      Matching Decomposition Sampling", 2019.
    """
    check_random(topology)
    checks.axis(axis_name=axis_name)
    channels = [disagreement(one, axis_name=axis_name) for one in topology.single]

    def init(params):
        checks.floating(params)
        return RandomGossipState(jnp.zeros((), jnp.int32))

    def average(tree, state):
        check_workers(topology, axis_name, "random_gossip")
        checks.floating(tree)
        key = jax.random.fold_in(jax.random.key(topology.seed), state.step)
        draws = jax.random.uniform(key, (len(channels),), jnp.float32)
        active = draws < jnp.array(topology.probabilities, jnp.float32)

        def add(channel: Channel, total: Tree) -> Tree:
            change, _, _ = call(channel, tree, channel.init(tree))
            return optax.tree.add(total, change)

        # Zeros that depend on the worker's index, so that the layout says for every
        # topology that means differ between workers.
        total = weigh(upcast(tree), np.zeros(topology.workers), axis_name)
        for is_active, channel in zip(active, channels, strict=True):
            total = lax.cond(is_active, partial(add, channel), _unchanged, total)
        mean = optax.tree.add(upcast(tree), total)
        return mean, zeros_to_accumulate(tree), RandomGossipState(state.step + 1)

    bits, entries = costs_of_copies(topology.degree)
    return Channel(init, average, bits, axis_name, entries)


def _unchanged(total: Tree) -> Tree:
    return total
