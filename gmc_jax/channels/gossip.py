"""The channel in which workers hear their neighbours alone."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gmc_jax import checks
from gmc_jax.channels.neighbours import check_workers, costs, in_turn, receive, weigh
from gmc_jax.core import Channel, Tree
from gmc_jax.described import described
from gmc_jax.mixing import Topology, check_keeps_the_mean
from gmc_jax.trees import widen, zeros_to_accumulate


class GossipState(NamedTuple):
    """The state of gossip.

    Attributes:
      step: int32, calls so far, which tell the round; the same on all workers.
      under_way: of every one of the last `delay` calls this worker's tree, which is
        still to reach its neighbours, the oldest first.
    """

    step: jax.Array
    under_way: tuple[Tree, ...]


@described
def gossip(
    topology: Topology, *, delay: int = 0, axis_name: str = "workers"
) -> Channel:
    """Averages with the neighbours of a topology: mean_i = sum over j of W_ij tree_j.

    Each neighbour's tree is one message from worker to worker (`lax.ppermute`), of one
    array for each dtype. The rounds of a topology that has several are branches of a
    conditional on the number of calls, so only the messages of one are sent.

    With a `delay` nobody waits for the neighbours: a worker's own share counts at once
    and what it gives away arrives so many calls later, of the round it was sent in,

        mean_i(t) = W_ii(t) tree_i(t) + sum over j != i of W_ij(s) tree_j(s)

    with s = t - delay. Messages of one call cross while gradients of the next ones are
    computed. What is under way is missing meanwhile, so that only push-sum makes means
    of it.

    Args:
      topology: who hears whom; it must keep the mean. See `gmc_jax.topologies`.
      delay: calls between sending and arriving, at least 0.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A channel with `GossipState`. It reaches neighbours: its means differ between
      workers, as long as they disagree. Its bits are those of the busiest worker in the
      busiest round.

    Raises:
      NameError: from `average` where no such axis is in scope.
      TypeError: if `topology` is no topology; from `init` and `average` where a leaf
        is not floating.
      ValueError: if the columns of a round do not sum to 1, or `delay` is not a whole
        number of at least 0; from `average` if the axis has another number of workers
        than the topology.

    Guarantees:
      The law of channels; `lost` is zero, or with a delay what this worker has more
      under way than before the call.
      A worker that hears nobody, and is heard by nobody, keeps its tree bit for bit.

    References:
      Lian et al., "Can Decentralized Algorithms Outperform Centralized Algorithms?",
      NeurIPS 2017.
    """
    check_keeps_the_mean(topology)
    checks.count(delay=delay)
    checks.axis(axis_name=axis_name)
    rounds = len(topology.rounds)
    own_share = np.stack([np.diag(matrix) for matrix in topology.rounds])
    exchanges = topology.exchanges

    def init(params):
        checks.floating(params)
        nothing = tuple(jax.tree.map(jnp.zeros_like, params) for _ in range(delay))
        return GossipState(jnp.zeros((), jnp.int32), nothing)

    def average(tree, state):
        check_workers(topology, axis_name, "gossip")
        checks.floating(tree)
        sent = (*state.under_way, tree)

        def mix(now: int) -> tuple[Tree, Tree]:
            then = (now - delay) % rounds
            kept = weigh(widen(tree), own_share[now], axis_name)
            mean = kept
            for exchange in exchanges[then]:
                heard = receive(sent[0], exchange, axis_name)
                heard = weigh(heard, exchange.weights, axis_name)
                mean = optax.tree.add(mean, heard)
            if not delay:
                return mean, zeros_to_accumulate(tree)
            arrived = weigh(widen(sent[0]), 1 - own_share[then], axis_name)
            left = optax.tree.sub(widen(tree), kept)
            return mean, optax.tree.sub(left, arrived)

        mean, lost = in_turn(rounds, mix, state.step)
        step = jnp.asarray(optax.safe_increment(state.step))
        return mean, lost, GossipState(step, sent[1:])

    bits, entries = costs(topology)
    return Channel(init, average, bits, axis_name, entries)
