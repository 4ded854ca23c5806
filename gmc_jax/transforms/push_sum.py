"""Push-sum: averages among workers who do not hear as many as hear them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmc_jax import checks
from gmc_jax.channels.gossip import GossipState
from gmc_jax.core import Channel, Tree
from gmc_jax.described import described
from gmc_jax.transforms.parameters import given, lead
from gmc_jax.transforms.sending import average_as
from gmc_jax.trees import accumulator_dtype, find, map_unmasked, to_accumulate, widen


class PushSumState(NamedTuple):
    """The state of push-sum.

    Attributes:
      weight: how much of all workers' mass lies here: a scalar for every leaf of the
        parameters, all equal, so that whatever becomes of the leaves' buffers where
        workers meet becomes of their weights; differs between workers.
      channel: the state of the channel.
    """

    weight: Tree
    channel: Tree

    def weighed(self, way: Tree) -> Tree:
        """At a meeting, the mean is that of numerators w_i z_i.

        With a delay weights do not add up to the number of workers, and all count
        alike, which is right where the topology treats all alike.
        """
        if self._waits:
            return way

        def weigh(leaf: jax.Array, w: Tree) -> jax.Array:
            return leaf if isinstance(w, optax.MaskedNode) else w * leaf

        return jax.tree.map(weigh, way, self.weight)

    def moved(self, start: Tree, end: Tree) -> PushSumState:
        """Who meets in one point has as much of it as others; messages come along."""
        if not self._waits:
            return self._replace(weight=map_unmasked(jnp.ones_like, self.weight))

        def follow(message: Tree) -> Tree:
            def shift(w: jax.Array, x: jax.Array, z: jax.Array, new: jax.Array):
                return (x + w * (new - z)).astype(x.dtype)

            numerators, weights = message
            return map_unmasked(shift, weights, numerators, start, end), weights

        channel = jax.tree.map(
            lambda node: (
                node._replace(under_way=tuple(map(follow, node.under_way)))
                if isinstance(node, GossipState)
                else node
            ),
            self.channel,
            is_leaf=lambda node: isinstance(node, GossipState),
        )
        return self._replace(channel=channel)

    @property
    def _waits(self) -> bool:
        return any(state.under_way for state in find(self.channel, GossipState))


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
      The sum over workers of w, and what of it is under way, stays their number; the
      sum of w_i z_i, and what is under way, moves by the sum of u.

    References:
      Assran, Loizou, Ballas and Rabbat, "Stochastic Gradient Push for Distributed Deep
      Learning", ICML 2019; Kempe, Dobra and Gehrke, "Gossip-Based Computation of
      Aggregate Information", FOCS 2003.
    """
    checks.channel(channel=channel)

    def ones(params: Tree) -> Tree:
        return jax.tree.map(
            lambda x: jnp.ones((), accumulator_dtype(jnp.result_type(x))), params
        )

    def init(params):
        checks.floating(params)
        weight = ones(params)
        return PushSumState(weight, channel.init((params, weight)))

    def update(updates, state, params=None, **extra_args):
        del extra_args
        start = given("push_sum", params)
        biased = jax.tree.map(
            lambda w, z, u: w * z + u,
            state.weight,
            widen(start),
            to_accumulate(updates),
        )
        (mass, weight), _, inner = average_as(
            channel, (biased, state.weight), state.channel, (start, state.weight)
        )
        end = jax.tree.map(jnp.divide, mass, weight)
        return lead(start, end), PushSumState(weight, inner)

    return optax.GradientTransformationExtraArgs(init, update)
