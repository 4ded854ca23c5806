"""Push-sum: averages among workers who do not hear as many as hear them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmc_jax.channels.gossip import GossipState
from gmc_jax.core import Channel, Tree, with_hooks
from gmc_jax.transforms._average_in_dtype import average_in_dtype
from gmc_jax.transforms._params import difference, require_params
from gmc_jax.transforms.consensus import adapt_then_combine
from gmc_jax.utils import checks
from gmc_jax.utils.described import described
from gmc_jax.utils.jaxprs import mark_updated
from gmc_jax.utils.trees import (
    accumulator_dtype,
    find,
    map_unmasked,
    upcast,
    upcast_floating,
    update_unmasked,
)


@with_hooks
class PushSumState(NamedTuple):
    """The state of push-sum.

    Attributes:
      weight: how much of all workers' mass lies here: a scalar for every leaf of the
        parameters, all equal; differs between workers.
      channel: the state of the channel.
    """

    weight: Tree
    channel: Tree

    def sync_weighted(self, way: Tree) -> Tree:
        """At a meeting a worker counts by its mass, here and in flight.

        All masses together are the number of workers, so that the mean over workers of
        mass times z is a mean of their z.
        """

        def weigh(leaf: jax.Array, w: jax.Array, *flying: jax.Array) -> jax.Array:
            return sum(flying, w) * leaf

        flying = [weights for _, weights in self._in_flight]
        return update_unmasked(weigh, way, self.weight, *flying)

    def on_sync(self, start: Tree, end: Tree) -> PushSumState:
        """What is in flight comes along: each weight of it by as much as z here.

        So the sum of w_i z_i and what is in flight moves by the number of workers times
        what the meeting adds to the mean: to the last digit nothing where it is a plain
        average. With nothing in flight, who meets in one point has as much of it as
        others.
        """
        if not self._in_flight:
            return self._replace(weight=map_unmasked(jnp.ones_like, self.weight))

        def shift(w: jax.Array, x: jax.Array, z: jax.Array, new: jax.Array):
            return (x + w * (new - z)).astype(x.dtype)

        def follow(message: Tree) -> Tree:
            numerators, weights = message
            return map_unmasked(shift, weights, numerators, start, end), weights

        def follow_all(node: Tree) -> Tree:
            if not _is_gossip(node):
                return node
            return node._replace(in_flight=tuple(map(follow, node.in_flight)))

        channel = jax.tree.map(follow_all, self.channel, is_leaf=_is_gossip)
        return self._replace(channel=channel)

    def conserved(self) -> Tree:
        """All weights together are the number of workers."""
        return self.weight, self.channel

    @property
    def _in_flight(self) -> list[tuple[Tree, Tree]]:
        """Numerators and weights of all messages."""
        gossips = find(self.channel, GossipState)
        return [message for state in gossips for message in state.in_flight]


@described
def push_sum(channel: Channel) -> optax.GradientTransformationExtraArgs:
    """Averages what workers push to each other, weighed by how much of it there is.

        x_i = w_i z_i + u_i
        x_i <- sum over j of P_ij x_j;  w_i <- sum over j of P_ij w_j;  z_i = x_i / w_i

    The last in its chain; u are updates, signed as optax has them. The parameters are
    z, free of the bias that x has where workers do not hear as many as hear them, so
    that gradients, weight decay and evaluation all see the right point; x is not kept.

    Args:
      channel: what pushes parameters and weights: `gossip(topology)`, whose columns sum
        to 1, with a delay or without.

    Returns:
      A transformation in units of steps, with `PushSumState`. Parameters and weights
      differ between workers. A message holds the parameters and a number for each leaf.

    Raises:
      ValueError: from the update if it is called without parameters.

    Guarantees:
      The sum over workers of w, and what of it is in flight, stays their number; the
      sum of w_i z_i, and what is in flight, moves by the sum of u.

    References:
      Assran, Loizou, Ballas and Rabbat, "Stochastic Gradient Push for Distributed Deep
      Learning", ICML 2019; Kempe, Dobra and Gehrke, "Gossip-Based Computation of
      Aggregate Information", FOCS 2003.
    """
    checks.channel(channel=channel)

    def init(params):
        checks.floating(params)
        weight = _ones(params)
        return PushSumState(weight, channel.init((params, weight)))

    def update(updates, state, params=None, **extra_args):
        del extra_args
        start = require_params("push_sum", params)
        biased = jax.tree.map(
            lambda w, z, u: w * z + u,
            state.weight,
            upcast(start),
            upcast_floating(updates),
        )
        (mass, weight), _, inner = average_in_dtype(
            channel, (biased, state.weight), state.channel, (start, state.weight)
        )
        end = jax.tree.map(jnp.divide, mass, weight)
        return difference(start, end), mark_updated(PushSumState(weight, inner))

    return optax.GradientTransformationExtraArgs(init, update)


def balanced_push_sum(channel: Channel) -> optax.GradientTransformationExtraArgs:
    """`push_sum` where workers give as much as they take, so that all weights are 1.

    It is `adapt_then_combine`: weights are not sent. They are kept, as each worker's
    own, so that the state is one of `push_sum`: with another number of workers the same
    graph may be unbalanced.

    Args:
      channel: what averages parameters, such as `gossip(topology)` of a topology that
        is doubly stochastic, without a delay.

    Returns:
      A transformation in units of steps, with `PushSumState`.

    Raises:
      ValueError: from the update if it is called without parameters.
    """
    inner = adapt_then_combine(channel)

    def init(params):
        return PushSumState(_ones(params), inner.init(params))

    def update(updates, state, params=None, **extra_args):
        updates, own = inner.update(updates, state.channel, params, **extra_args)
        # One of each worker's own, or the layout would keep a single one for all.
        one = jnp.where(jax.lax.axis_index(channel.axis_name) < 0, 0.0, 1.0)
        weight = jax.tree.map(lambda w: one.astype(w.dtype), state.weight)
        return updates, mark_updated(PushSumState(weight, own))

    return optax.GradientTransformationExtraArgs(init, update)


def _ones(params: Tree) -> Tree:
    return jax.tree.map(
        lambda x: jnp.ones((), accumulator_dtype(jnp.result_type(x))), params
    )


def _is_gossip(node: Tree) -> bool:
    return isinstance(node, GossipState)
