"""Push-sum: averages over graphs that are not doubly stochastic."""

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
from gmc_jax.utils.call_repr import call_repr
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
      weight: w, how much this worker counts: a scalar for every leaf of the parameters,
        all equal. It differs between workers; all w, those in flight included, sum to
        the number of workers.
      channel: the state of the channel.
    """

    weight: Tree
    channel: Tree

    def sync_weighted(self, pseudo_gradient: Tree) -> Tree:
        """A worker counts by its own weight plus its weights in flight.

        All these weights sum to the number of workers. So the mean over workers of
        weight times z is a weighted mean of their z.
        """

        def weigh(leaf: jax.Array, w: jax.Array, *in_flight: jax.Array) -> jax.Array:
            return sum(in_flight, w) * leaf

        in_flight = [weights for _, weights in self._in_flight]
        return update_unmasked(weigh, pseudo_gradient, self.weight, *in_flight)

    def on_sync(self, start: Tree, end: Tree) -> PushSumState:
        """Messages in flight move too: by their weight times the move of z here.

        So the sum of all w_i z_i, messages in flight included, moves by the number of
        workers times what the synchronisation adds to the mean. Where it is a plain
        average, the sum stays the same to the last digit. With no message in flight,
        all workers are at one point, and each gets the weight 1.
        """
        if not self._in_flight:
            return self._replace(weight=map_unmasked(jnp.ones_like, self.weight))

        def shift(w: jax.Array, x: jax.Array, z: jax.Array, new: jax.Array):
            return (x + w * (new - z)).astype(x.dtype)

        def shift_message(message: Tree) -> Tree:
            numerators, weights = message
            return map_unmasked(shift, weights, numerators, start, end), weights

        def shift_all(node: Tree) -> Tree:
            if not _is_gossip(node):
                return node
            return node._replace(in_flight=tuple(map(shift_message, node.in_flight)))

        channel = jax.tree.map(shift_all, self.channel, is_leaf=_is_gossip)
        return self._replace(channel=channel)

    def conserved(self) -> Tree:
        """The sum of all weights is the number of workers."""
        return self.weight, self.channel

    @property
    def _in_flight(self) -> list[tuple[Tree, Tree]]:
        """Numerators and weights of all messages in flight."""
        gossips = find(self.channel, GossipState)
        return [message for state in gossips for message in state.in_flight]


@call_repr
def push_sum(channel: Channel) -> optax.GradientTransformationExtraArgs:
    """Averages the parameters that workers push to each other, and their weights.

        x_i = w_i z_i + u_i
        x_i <- sum over j of P_ij x_j;  w_i <- sum over j of P_ij w_j;  z_i = x_i / w_i

    It stands last in its chain; u are updates, signed as in optax. The parameters are
    z, so gradients, weight decay and evaluation all use the right point. x is biased
    where workers receive from more or fewer neighbours than they send to, and is not
    kept.

    Args:
      channel: pushes parameters and weights: `gossip(topology)`, whose columns sum to
        1, with or without a delay.

    Returns:
      A transformation in units of steps, with `PushSumState`. Parameters and weights
      differ between workers. A message holds the parameters and a weight for each leaf.

    Raises:
      TypeError: if `channel` is not a channel.
      ValueError: from the update if it is called without parameters.

    Guarantees:
      The sum over workers of w, messages in flight included, is the number of workers.
      The sum of w_i z_i, messages in flight included, moves by the sum of u.

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
        (numerator, weight), _, inner = average_in_dtype(
            channel, (biased, state.weight), state.channel, (start, state.weight)
        )
        end = jax.tree.map(jnp.divide, numerator, weight)
        return difference(start, end), mark_updated(PushSumState(weight, inner))

    return optax.GradientTransformationExtraArgs(init, update)


def balanced_push_sum(channel: Channel) -> optax.GradientTransformationExtraArgs:
    """`push_sum` on a doubly stochastic topology, where all weights are 1.

    It is `adapt_then_combine`, and sends no weights. The state holds them all the same,
    one for each worker, so that it is a state of `push_sum`: with another number of
    workers the same kind of graph may not be doubly stochastic.

    Args:
      channel: averages the parameters, such as `gossip(topology)` of a topology that is
        doubly stochastic, without a delay.

    Returns:
      A transformation in units of steps, with `PushSumState`.

    Raises:
      TypeError: if `channel` is not a channel.
      ValueError: from the update if it is called without parameters.
    """
    inner = adapt_then_combine(channel)

    def init(params):
        return PushSumState(_ones(params), inner.init(params))

    def update(updates, state, params=None, **extra_args):
        updates, own = inner.update(updates, state.channel, params, **extra_args)
        # Depends on the worker's index: else the layout would keep one for all workers.
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
