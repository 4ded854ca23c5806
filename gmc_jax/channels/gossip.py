"""The channel in which workers hear their neighbours alone."""

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
from gmc_jax.graphs.matchings import Matrix, permutations
from gmc_jax.graphs.topology import Topology, check_keeps_the_mean
from gmc_jax.utils import checks
from gmc_jax.utils.described import described
from gmc_jax.utils.trees import downcast, upcast, zeros_to_accumulate


@with_hooks
class GossipState(NamedTuple):
    """The state of gossip.

    Attributes:
      step: int32, calls so far, which tell the round; the same on all workers. Before
        it would overflow it starts again, in the round whose turn it is.
      in_flight: what this worker gave away in each of the last `delay` calls, all
        shares together, and what is still to reach its neighbours; the oldest first.
    """

    step: jax.Array
    in_flight: tuple[Tree, ...]

    def conserved(self) -> Tree:
        """What is in flight still arrives."""
        return self.in_flight


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
    computed. What is in flight is missing meanwhile, so that only push-sum makes means
    of it. It is kept as the share that was given away, (1 - W_jj(s)) tree_j(s): what
    all workers have and what they have in flight add up to the same, whatever the
    topology that delivers it. Of a worker whom nobody hears when it is to arrive, it
    comes back.

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
      The law of channels; `lost` is zero, or with a delay what this worker has more in
      flight than before the call.
      A worker that hears nobody, and is heard by nobody, keeps its tree bit for bit.

    References:
      Lian et al., "Can Decentralized Algorithms Outperform Centralized Algorithms?",
      NeurIPS 2017.
    """
    check_keeps_the_mean(topology)
    checks.nonnegative_int(delay=delay)
    checks.axis(axis_name=axis_name)
    rounds = len(topology.rounds)
    own_share = np.stack([np.diag(matrix) for matrix in topology.rounds])
    arriving = tuple(map(_shares, topology.rounds)) if delay else topology.rounds
    matchings = tuple(map(permutations, arriving))

    def init(params):
        checks.floating(params)
        nothing = tuple(jax.tree.map(jnp.zeros_like, params) for _ in range(delay))
        return GossipState(jnp.zeros((), jnp.int32), nothing)

    def give(tree: Tree, now: int) -> tuple[Tree, Tree]:
        """What stays here, and what leaves in the dtypes of the tree."""
        shares = weigh(upcast(tree), 1 - own_share[now], axis_name)
        leaving = downcast(shares, tree)

        def keep(own: jax.Array, share: jax.Array, sent: jax.Array) -> jax.Array:
            # What rounding to fewer bits does not let leave stays as well.
            return own if sent.dtype == share.dtype else own + (share - upcast(sent))

        own = weigh(upcast(tree), own_share[now], axis_name)
        return jax.tree.map(keep, own, shares, leaving), leaving

    def average(tree, state):
        check_workers(topology, axis_name, "gossip")
        checks.floating(tree)

        def hear(mean: Tree, sent: Tree, then: int) -> Tree:
            for matching in matchings[then]:
                heard = receive(sent, matching, axis_name)
                heard = weigh(heard, matching.weights, axis_name)
                mean = optax.tree.add(mean, heard)
            return mean

        def mix(now: int) -> Tree:
            return hear(weigh(upcast(tree), own_share[now], axis_name), tree, now)

        def mix_late(now: int) -> tuple[Tree, Tree]:
            kept, leaving = give(tree, now)
            then, oldest = (now - delay) % rounds, state.in_flight[0]
            unheard = np.diag(arriving[then])
            if unheard.any():
                back = weigh(upcast(oldest), unheard, axis_name)
                kept = optax.tree.add(kept, back)
            return hear(kept, oldest, then), leaving

        step = next_call(state.step, rounds)
        if not delay:
            mean = in_turn(rounds, mix, state.step)
            return mean, zeros_to_accumulate(tree), GossipState(step, ())
        mean, leaving = in_turn(rounds, mix_late, state.step)
        lost = optax.tree.sub(upcast(leaving), upcast(state.in_flight[0]))
        return mean, lost, GossipState(step, (*state.in_flight[1:], leaving))

    bits, entries = costs(topology)
    return Channel(init, average, bits, axis_name, entries)


def _shares(matrix: Matrix) -> Matrix:
    """How what each worker gives away is shared out; all its own where nobody hears."""
    given = matrix - np.diag(matrix.diagonal())
    total = given.sum(axis=0)
    return given / np.where(total, total, 1) + np.diag(total == 0)
