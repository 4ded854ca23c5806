"""Gradient tracking: each worker estimates the mean gradient of all."""

from __future__ import annotations

from typing import NamedTuple

import optax

from gmc_jax.core import Channel, Tree, with_hooks
from gmc_jax.transforms._average_in_dtype import average_in_dtype
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.trees import upcast_floating, zeros_to_accumulate


@with_hooks
class TrackGradientsState(NamedTuple):
    """The state of gradient tracking; float32 for 16-bit trees.

    Attributes:
      tracker: y, this worker's estimate of the mean gradient; differs between workers.
      last: this worker's last gradient; differs between workers.
      channel: the state of the channel.
    """

    tracker: Tree
    last: Tree
    channel: Tree

    def conserved(self) -> Tree:
        """The mean over workers of the tracker is that of the last gradients."""
        return self.tracker, self.last, self.channel


@call_repr
def track_gradients(channel: Channel) -> optax.GradientTransformationExtraArgs:
    """Replaces each worker's gradient by its estimate of the mean of all.

        y_i <- sum over j of W_ij y_j + g_i - (the last g_i);  out = y_i

    After the first step y is the first gradient. Values travel in the dtypes of the
    parameters, or of the updates where `update` is called without parameters.

    Args:
      channel: averages the trackers, such as `gossip(topology)`, without a delay.

    Returns:
      A transformation in units of gradients, with `TrackGradientsState`.

    Raises:
      TypeError: if `channel` is not a channel.

    Guarantees:
      The mean over workers of y is the mean of their gradients, at every step.

    References:
      Di Lorenzo and Scutari, "NEXT", 2016; Nedic, Olshevsky and Shi, "Achieving
      Geometric Convergence for Distributed Optimization over Time-Varying Graphs",
      2017.
    """
    checks.channel(channel=channel)

    def init(params):
        zeros = zeros_to_accumulate(params)
        return TrackGradientsState(zeros, zeros, channel.init(params))

    def update(updates, state, params=None, **extra_args):
        del extra_args
        like = updates if params is None else params
        mean, lost, inner = average_in_dtype(
            channel, state.tracker, state.channel, like
        )
        grads = upcast_floating(updates)
        change = optax.tree.sub(grads, state.last)
        tracker = optax.tree.add(mean, lost, change)
        return tracker, TrackGradientsState(tracker, grads, inner)

    return optax.GradientTransformationExtraArgs(init, update)
