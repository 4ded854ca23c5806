"""The channel in which workers hear their neighbours alone."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from gmc_jax import checks
from gmc_jax.channels.axis import workers_on
from gmc_jax.channels.wire import cross
from gmc_jax.core import Channel, Tree
from gmc_jax.topologies import Exchange, Matrix, Topology
from gmc_jax.trees import size_in_bits, widen, zeros_to_accumulate


class GossipState(NamedTuple):
    """The state of gossip.

    Attributes:
      step: int32, calls so far, which tell the round; the same on all workers.
    """

    step: jax.Array


def gossip(topology: Topology, *, axis_name: str = "workers") -> Channel:
    """Averages with the neighbours of a topology: mean_i = sum over j of W_ij tree_j.

    Each neighbour's tree is one message from worker to worker (`lax.ppermute`), of one
    array for each dtype. The rounds of a topology that has several are branches of a
    conditional on the number of calls, so only the messages of one are sent.

    Args:
      topology: who hears whom; it must keep the mean. See `gmc_jax.topologies`.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A channel with `GossipState`. It reaches neighbours: its means differ between
      workers, as long as they disagree. Its bits are those of the busiest worker in the
      busiest round.

    Raises:
      NameError: from `average` where no such axis is in scope.
      TypeError: from `average` where a leaf is not floating.
      ValueError: if the columns of a round do not sum to 1; from `average` if the axis
        has another number of workers than the topology.

    Guarantees:
      The law of channels; `lost` is zero.
      A worker that hears nobody keeps its tree as it is, bit for bit.

    References:
      Lian et al., "Can Decentralized Algorithms Outperform Centralized Algorithms?",
      NeurIPS 2017.
    """
    if not topology.keeps_the_mean:
        sums = [matrix.sum(axis=0).round(6).tolist() for matrix in topology.rounds]
        raise ValueError(
            "`topology` must keep the mean, so that nothing is lost or made on the "
            f"way: the columns of its rounds must sum to 1, but sum to {sums}."
        )
    rounds = list(zip(topology.rounds, topology.exchanges, strict=True))

    def init(params):
        del params
        return GossipState(jnp.zeros((), jnp.int32))

    def average(tree, state):
        workers = workers_on(axis_name, "gossip")
        if workers != topology.workers:
            raise ValueError(
                f"`topology` is of {topology.workers} workers, but the axis "
                f"{axis_name!r} has {workers}. Make it for as many."
            )
        checks.floating(tree, "gossip")
        mixes = [partial(_mix, tree, axis_name, *one) for one in rounds]
        if len(mixes) == 1:
            mean = mixes[0]()
        else:
            mean = lax.switch(state.step % len(mixes), mixes)
        step = jnp.asarray(optax.safe_increment(state.step))
        return mean, zeros_to_accumulate(tree), GossipState(step)

    def messages() -> int:
        return max(
            max(
                sum(_leaves(one, worker) for one in exchanges)
                for _, exchanges in rounds
            )
            for worker in range(topology.workers)
        )

    def bits(tree):
        shapes = jax.eval_shape(partial(jax.tree.map, jnp.asarray), tree)
        return messages() * size_in_bits(shapes)

    def entries(tree):
        return messages() * sum(leaf.size for leaf in jax.tree.leaves(tree))

    return Channel(init, average, bits, axis_name, entries)


def _mix(
    tree: Tree, axis_name: str, matrix: Matrix, exchanges: tuple[Exchange, ...]
) -> Tree:
    """One worker's row of the matrix times the trees of those it hears."""
    worker = lax.axis_index(axis_name)

    def weighted(tree: Tree, weights: np.ndarray | tuple[float, ...]) -> Tree:
        own = jnp.asarray(weights, jnp.result_type(float))[worker]
        return jax.tree.map(lambda leaf: own.astype(leaf.dtype) * leaf, widen(tree))

    mixed = weighted(tree, np.diag(matrix))
    for exchange in exchanges:
        send: Callable = partial(lax.ppermute, axis_name=axis_name, perm=exchange.pairs)
        heard = weighted(cross(tree, send), exchange.weights)
        mixed = optax.tree.add(mixed, heard)
    return mixed


def _leaves(exchange: Exchange, worker: int) -> bool:
    """Whether a message of this worker leaves it."""
    return (worker, worker) not in exchange.pairs
