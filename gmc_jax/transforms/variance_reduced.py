"""Variance reduction: gradients corrected by gradients at a snapshot."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmc_jax.core import Channel, Tree, with_hooks
from gmc_jax.transforms._average_in_dtype import average_in_dtype
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.trees import upcast, upcast_floating, zeros_to_accumulate


@with_hooks
class VarianceReducedState(NamedTuple):
    """The state of variance reduction; the same on all workers.

    Attributes:
      snapshot: the parameters at which the full gradient was taken.
      full_gradient: mu, over all samples of all workers; float32 for 16-bit trees.
      channel: the state of the channel.
    """

    snapshot: Tree
    full_gradient: Tree
    channel: Tree

    def conserved(self) -> Tree:
        """Only the loop can compute the full gradient again."""
        return self.snapshot, self.full_gradient, self.channel


@call_repr
def variance_reduced(channel: Channel) -> optax.GradientTransformationExtraArgs:
    """Corrects each mini-batch's gradient by its gradient at a snapshot.

        v = mu + mean over k of (g_k - s_k)

    g_k and s_k are one worker's gradients of the same mini-batch, g_k at the parameters
    and s_k at the snapshot. mu is the full gradient at the snapshot. The loop passes
    s_k at every step, `tx.update(grads, opt_state, params, snapshot_grads=...)`, taken
    at `gmc_jax.svrg_snapshot(opt_state)`. It sets mu at the start of every epoch with
    `gmc_jax.set_full_gradient(opt_state, params, gradient)`, which makes the parameters
    the snapshot. Before the first call mu is NaN, so a loop that forgets it fails
    visibly.

    Args:
      channel: averages the differences over workers, each with its part of a
        mini-batch.

    Returns:
      A transformation in units of gradients, with `VarianceReducedState`.

    Raises:
      TypeError: if `channel` is not a channel; from the update if it is called without
        `snapshot_grads`.

    Guarantees:
      At the snapshot v is mu, whatever the mini-batch.

    References:
      Johnson and Zhang, "Accelerating Stochastic Gradient Descent using Predictive
      Variance Reduction", NeurIPS 2013.
    """
    checks.channel(channel=channel)

    def init(params):
        checks.floating(params)
        # A copy: the loop may donate the parameters' own memory.
        snapshot = jax.tree.map(jnp.array, params)
        return VarianceReducedState(snapshot, _nans(params), channel.init(params))

    def update(updates, state, params=None, *, snapshot_grads=None, **extra_args):
        del extra_args
        if snapshot_grads is None:
            raise TypeError(
                "`snapshot_grads` must be given to `variance_reduced`, got None: it "
                "compares gradients with those of the same batch at the snapshot. Call "
                "`tx.update(grads, opt_state, params, "
                "snapshot_grads=grads_at(gmc_jax.svrg_snapshot(opt_state)))`."
            )
        like = updates if params is None else params
        change = optax.tree.sub(upcast_floating(updates), upcast(snapshot_grads))
        mean, _, inner = average_in_dtype(channel, change, state.channel, like)
        out = optax.tree.add(state.full_gradient, mean)
        return out, VarianceReducedState(state.snapshot, state.full_gradient, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def _nans(params: Tree) -> Tree:
    zeros = zeros_to_accumulate(params)
    with jax.debug_nans(False):  # These NaNs are on purpose.
        return jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), zeros)
