"""Estimates that neighbours have of each other, kept up to date by messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax

from gmc_jax.core import Channel, Tree, with_hooks
from gmc_jax.utils import checks
from gmc_jax.utils.trees import downcast, times, upcast, zeros_to_accumulate


@with_hooks
class GossipDifferencesState(NamedTuple):
    """The state of gossip of differences; float32 for 16-bit trees.

    Attributes:
      estimate: h_i, what the neighbours know of this worker's tree; it differs between
        workers.
      disagreement: sum over j of W_ij (h_j - h_i), to which each call adds its
        messages; it differs between workers, and its mean over them is zero.
      channel: the state of the channel of the messages.
    """

    estimate: Tree
    disagreement: Tree
    channel: Tree

    def conserved(self) -> Tree:
        """Later messages only say what changed."""
        return tuple(self)


def channel_of_differences(
    messages: Channel,
    order: Callable[
        [Tree, GossipDifferencesState], tuple[Tree, GossipDifferencesState]
    ],
) -> Channel:
    """A channel that loses nothing, and whose estimates all begin at zero.

    Args:
      messages: the channel that differences are sent through.
      order: `(tree, state) -> (mean, state)`, which steps and sends in some order.
    """

    def init(params):
        zeros = zeros_to_accumulate(params)
        return GossipDifferencesState(zeros, zeros, messages.init(params))

    def average(tree, state):
        checks.floating(tree)
        mean, state = order(tree, state)
        return mean, zeros_to_accumulate(tree), state

    return messages._replace(init=init, average=average)


def send_difference(
    channel: Channel, tree: Tree, state: GossipDifferencesState, like: Tree
) -> GossipDifferencesState:
    """Sends how far a tree is from its estimate, and follows all messages.

    The sums of neighbours' estimates are not kept, but their differences to the own
    one: these are small where workers agree, and so are the rounding errors that add
    up in them.

    Args:
      channel: of the messages, which is linear in what arrives.
      tree: this worker's.
      state: the state before.
      like: a tree of the dtypes that values travel in.
    """
    difference = downcast(optax.tree.sub(upcast(tree), state.estimate), like)
    mean, lost, inner = channel.average(difference, state.channel)
    arrived = optax.tree.sub(upcast(difference), lost)
    return GossipDifferencesState(
        optax.tree.add(state.estimate, arrived),
        optax.tree.add(state.disagreement, optax.tree.sub(mean, arrived)),
        inner,
    )


def step_to_neighbours(
    tree: Tree, state: GossipDifferencesState, consensus_step: float
) -> Tree:
    """The tree, upcast, and a step towards the estimates of the neighbours."""

    def step(leaf: jax.Array, apart: jax.Array) -> jax.Array:
        return leaf + times(consensus_step, apart)

    return jax.tree.map(step, upcast(tree), state.disagreement)
