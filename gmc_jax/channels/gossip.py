"""The channel in which each worker averages with its neighbours."""

from __future__ import annotations

from typing import NamedTuple

import jax
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
from gmc_jax.core import Channel, Tree, with_hooks
from gmc_jax.graphs.matchings import permutations
from gmc_jax.graphs.sparse_matrix import SparseMatrix, from_weights
from gmc_jax.graphs.topology import Topology, check_keeps_the_mean
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.trees import downcast, upcast, zeros_to_accumulate


@with_hooks
class GossipState(NamedTuple):
    """The state of gossip.

    Attributes:
      step: int32, calls so far; the same on all workers. It selects the round, and goes
        back by whole cycles of all rounds before int32 overflows.
      in_flight: for each of the last `delay` calls, the oldest first, the sum of the
        shares that this worker sent and its neighbours have not received yet.
    """

    step: jax.Array
    in_flight: tuple[Tree, ...]

    def conserved(self) -> Tree:
        """Messages in flight, which their receivers still add."""
        return self.in_flight


@call_repr
def gossip(
    topology: Topology, *, delay: int = 0, axis_name: str = "workers"
) -> Channel:
    """Averages with the neighbours of a topology: mean_i = sum over j of W_ij tree_j.

    The tree of each neighbour is one message from worker to worker (`lax.ppermute`),
    with one array for each dtype. A topology may have several rounds. They are branches
    of a conditional on the number of calls, so only the messages of one round are sent.

    With a `delay` no worker waits for its neighbours. Its own share counts at once, and
    what it sends is received `delay` calls later:

        mean_i(t) = W_ii(t) tree_i(t) + sum over j != i of W_ij(s) tree_j(s)

    with s = t - delay. Messages travel while the gradients of the next calls are
    computed. The means lack what is in flight, so use a delay with push-sum. A message
    in flight is kept as the share that was sent, (1 - W_jj(s)) tree_j(s). So the trees
    of all workers and their messages in flight have a constant sum, whatever topology
    delivers them. A share that no worker receives when it is due returns to its sender.

    Args:
      topology: who receives from whom; it must keep the mean. See `gmc_jax.topologies`.
      delay: calls between sending and receiving, at least 0.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A channel with `GossipState`. It reaches neighbours alone: its means differ
      between workers as long as their trees do. Its bits are those of the busiest
      worker in the busiest round.

    Raises:
      NameError: from `average` where no such axis is in scope.
      TypeError: if `topology` is no topology; from `init` and `average` if a leaf is
        not floating.
      ValueError: if the columns of a round do not sum to 1, or `delay` is not a whole
        number of at least 0; from `average` if the axis has another number of workers
        than the topology.

    Guarantees:
      The law of channels. Without a delay `lost` is zero. With one it is what this
      worker has in flight after the call, minus what it had in flight before.
      A worker without neighbours keeps its tree, bit for bit.

    References:
      Lian et al., "Can Decentralized Algorithms Outperform Centralized Algorithms?",
      NeurIPS 2017.
    """
    check_keeps_the_mean(topology)
    checks.nonnegative_int(delay=delay)
    checks.axis(axis_name=axis_name)
    rounds = len(topology.mixing)
    own_share = np.stack([matrix.diagonal() for matrix in topology.mixing])
    matchings, returned = topology.matchings, np.zeros_like(own_share)
    if delay:
        arriving = [_shares(matrix) for matrix in topology.mixing]
        matchings = tuple(map(permutations, arriving))
        returned = np.stack([matrix.diagonal() for matrix in arriving])

    def init(params):
        checks.floating(params)
        nothing = tuple(jax.tree.map(jnp.zeros_like, params) for _ in range(delay))
        return GossipState(jnp.zeros((), jnp.int32), nothing)

    def split(tree: Tree, now: int) -> tuple[Tree, Tree]:
        """The share that stays here, and the one that is sent, in the tree's dtypes."""
        shares = weigh(upcast(tree), 1 - own_share[now], axis_name)
        sent = downcast(shares, tree)

        def keep(own: jax.Array, share: jax.Array, sent: jax.Array) -> jax.Array:
            # What rounding to fewer bits cuts off stays here as well.
            return own if sent.dtype == share.dtype else own + (share - upcast(sent))

        own = weigh(upcast(tree), own_share[now], axis_name)
        return jax.tree.map(keep, own, shares, sent), sent

    def average(tree, state):
        check_workers(topology, axis_name, "gossip")
        checks.floating(tree)

        def add_received(mean: Tree, sent: Tree, then: int) -> Tree:
            for matching in matchings[then]:
                received = receive(sent, matching, axis_name)
                received = weigh(received, matching.weights, axis_name)
                mean = optax.tree.add(mean, received)
            return mean

        def mix(now: int) -> Tree:
            own = weigh(upcast(tree), own_share[now], axis_name)
            return add_received(own, tree, now)

        def mix_late(now: int) -> tuple[Tree, Tree]:
            own, sent = split(tree, now)
            then, oldest = (now - delay) % rounds, state.in_flight[0]
            if returned[then].any():
                back = weigh(upcast(oldest), returned[then], axis_name)
                own = optax.tree.add(own, back)
            return add_received(own, oldest, then), sent

        step = next_call(state.step, rounds)
        if not delay:
            mean = in_turn(rounds, mix, state.step)
            return mean, zeros_to_accumulate(tree), GossipState(step, ())
        mean, sent = in_turn(rounds, mix_late, state.step)
        lost = optax.tree.sub(upcast(sent), upcast(state.in_flight[0]))
        return mean, lost, GossipState(step, (*state.in_flight[1:], sent))

    bits, entries = costs(topology)
    return Channel(init, average, bits, axis_name, entries)


def _shares(matrix: SparseMatrix) -> SparseMatrix:
    """How the share that a worker sends is divided among its receivers.

    A worker without receivers sends its share to itself.
    """
    sent = matrix.without_diagonal()
    total = sent.given_away()
    alone = np.flatnonzero(total == 0)
    return from_weights(
        matrix.workers,
        np.concatenate([sent.senders, alone]),
        np.concatenate([sent.receivers, alone]),
        np.concatenate([sent.weights / total[sent.senders], np.ones(len(alone))]),
    )
