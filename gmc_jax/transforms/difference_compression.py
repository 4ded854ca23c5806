"""Difference compression: neighbours follow compressed moves of the parameters."""

from __future__ import annotations

from typing import NamedTuple

import optax

from gmc_jax.core import Channel, Tree, with_hooks
from gmc_jax.transforms._average_in_dtype import average_in_dtype
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.trees import upcast_floating, zeros_to_accumulate


@with_hooks
class DifferenceCompressionState(NamedTuple):
    """The state of difference compression; float32 for 16-bit trees.

    Attributes:
      disagreement: r, the sum over j of W_ij (x_j - x_i), to which each step adds its
        messages. It differs between workers, and its mean over them is zero.
      channel: the state of the channel.
    """

    disagreement: Tree
    channel: Tree

    def conserved(self) -> Tree:
        """Later messages only say what changed."""
        return self.disagreement, self.channel


@call_repr
def difference_compression(channel: Channel) -> optax.GradientTransformationExtraArgs:
    """Moves each worker by the compressed move that its neighbours are told of.

        z_i = sum over j of W_ij x_j + u_i - x_i = r_i + u_i
        x_i <- x_i + C(z_i)
        r_i <- r_i + sum over j of W_ij (C(z_j) - C(z_i))

    It stands last in its chain; u are updates, signed as in optax, from gradients that
    were taken at x_i. All workers start equal, and every worker moves by what it sends.
    So its neighbours know where it is, and r is what they would find by comparing their
    parameters. What C loses of a move is not taken: the neighbours' difference r stays,
    and what is lost of the worker's own step u is lost for good.

    Args:
      channel: averages the compressed moves with the neighbours: `compressed_gossip(
        topology, compressor)`, whose compressor should be unbiased or lose little.

    Returns:
      A transformation in units of steps, with `DifferenceCompressionState`. Parameters
      differ between workers, and so do its updates. It must make every move of the
      parameters: what else moves them is not told to the neighbours.

    Raises:
      TypeError: if `channel` is not a channel.

    Guarantees:
      The mean over workers of r stays zero.
      Through a channel that loses nothing it is `combine_then_adapt(channel)`.

    References:
      Tang, Gan, Zhang, Zhang and Liu, "Communication Compression for Decentralized
      Training", NeurIPS 2018.
    """
    checks.channel(channel=channel)

    def init(params):
        return DifferenceCompressionState(
            zeros_to_accumulate(params), channel.init(params)
        )

    def update(updates, state, params=None, **extra_args):
        del extra_args
        like = updates if params is None else params
        move = optax.tree.add(state.disagreement, upcast_floating(updates))
        mean, lost, inner = average_in_dtype(channel, move, state.channel, like)
        sent = optax.tree.sub(move, lost)
        change = optax.tree.sub(mean, sent)
        disagreement = optax.tree.add(state.disagreement, change)
        return sent, DifferenceCompressionState(disagreement, inner)

    return optax.GradientTransformationExtraArgs(init, update)
