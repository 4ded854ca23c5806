"""The channel in which workers hear their neighbours alone."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from numpy.typing import ArrayLike

from gmc_jax import checks
from gmc_jax.channels.axis import workers_on
from gmc_jax.channels.wire import cross
from gmc_jax.core import Channel, Tree
from gmc_jax.exchanges import Exchange
from gmc_jax.topologies import Topology, check_keeps_the_mean
from gmc_jax.trees import size_in_bits, widen, zeros_to_accumulate


class GossipState(NamedTuple):
    """The state of gossip.

    Attributes:
      step: int32, calls so far, which tell the round; the same on all workers.
      under_way: of every one of the last `delay` calls this worker's tree, which is
        still to reach its neighbours, the oldest first.
    """

    step: jax.Array
    under_way: tuple[Tree, ...]


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
      TypeError: if `topology` is no topology; from `average` where a leaf is not
        floating.
      ValueError: if the columns of a round do not sum to 1, or `delay` is not a whole
        number of at least 0; from `average` if the axis has another number of workers
        than the topology.

    Guarantees:
      The law of channels; `lost` is zero, or with a delay what this worker has more
      under way than before the call.
      A worker that hears nobody keeps its tree as it is, bit for bit.

    References:
      Lian et al., "Can Decentralized Algorithms Outperform Centralized Algorithms?",
      NeurIPS 2017.
    """
    check_keeps_the_mean(topology)
    checks.count(delay=delay)
    rounds = len(topology.rounds)
    own_share = np.stack([np.diag(matrix) for matrix in topology.rounds])
    exchanges = topology.exchanges

    def init(params):
        nothing = tuple(jax.tree.map(jnp.zeros_like, params) for _ in range(delay))
        return GossipState(jnp.zeros((), jnp.int32), nothing)

    def average(tree, state):
        workers = workers_on(axis_name, "gossip")
        if workers != topology.workers:
            raise ValueError(
                f"`topology` is of {topology.workers} workers, but the axis "
                f"{axis_name!r} has {workers}. Make it for as many."
            )
        checks.floating(tree)
        sent = (*state.under_way, tree)

        def mix(now: int) -> tuple[Tree, Tree]:
            then = (now - delay) % rounds
            kept = _weighted(tree, own_share[now], axis_name)
            mean = kept
            for exchange in exchanges[then]:
                heard = _heard(sent[0], exchange, axis_name)
                mean = optax.tree.add(mean, heard)
            if not delay:
                return mean, zeros_to_accumulate(tree)
            arrived = _weighted(sent[0], 1 - own_share[then], axis_name)
            left = optax.tree.sub(widen(tree), kept)
            return mean, optax.tree.sub(left, arrived)

        branches = [partial(mix, now) for now in range(rounds)]
        now = state.step % rounds
        mean, lost = lax.switch(now, branches) if rounds > 1 else mix(0)
        step = jnp.asarray(optax.safe_increment(state.step))
        return mean, lost, GossipState(step, sent[1:])

    def messages() -> int:
        return max(
            max(
                sum((worker, worker) not in exchange.pairs for exchange in one_round)
                for one_round in exchanges
            )
            for worker in range(topology.workers)
        )

    def bits(tree):
        shapes = jax.eval_shape(partial(jax.tree.map, jnp.asarray), tree)
        return messages() * size_in_bits(shapes)

    def entries(tree):
        return messages() * sum(leaf.size for leaf in jax.tree.leaves(tree))

    return Channel(init, average, bits, axis_name, entries)


def _heard(tree: Tree, exchange: Exchange, axis_name: str) -> Tree:
    """What arrives of the trees of others, as this worker weighs it."""
    send: Callable = partial(lax.ppermute, axis_name=axis_name, perm=exchange.pairs)
    return _weighted(cross(tree, send), exchange.weights, axis_name)


def _weighted(tree: Tree, weights: ArrayLike, axis_name: str) -> Tree:
    """A tree times this worker's weight out of those of all, [workers].

    Without a weight it is zero, even of what is no number.
    """
    own = jnp.asarray(weights, jnp.result_type(float))[lax.axis_index(axis_name)]

    def weigh(leaf: jax.Array) -> jax.Array:
        return jnp.where(own == 0, 0, own.astype(leaf.dtype) * leaf)

    return jax.tree.map(weigh, widen(tree))
