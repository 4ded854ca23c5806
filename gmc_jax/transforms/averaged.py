"""Averaging over workers as an optax transformation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._average_in_dtype import average_in_dtype
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def averaged(channel: Channel) -> optax.GradientTransformationExtraArgs:
    """Replaces each worker's updates by the channel's average of them.

    What a lossy channel loses is never sent; `error_feedback` keeps it. Values travel
    in the dtypes of the parameters, or of the updates where `update` is called without
    parameters. Rounding to these comes first, and a compressor selects among the
    rounded values.

    Args:
      channel: averages the updates.

    Returns:
      A transformation in any units, whose state is the channel's.

    Raises:
      TypeError: if `channel` is not a channel.

    Example:
      Momentum SGD on the mean gradient:

      >>> import gmc_jax, optax
      >>> tx = optax.chain(
      ...     gmc_jax.averaged(gmc_jax.exact()), optax.trace(0.9), optax.scale(-0.1)
      ... )

    Guarantees:
      Updates keep their dtypes.
    """
    checks.channel(channel=channel)

    def init(params):
        return channel.init(params)

    def update(updates, state, params=None, **extra_args):
        del extra_args
        like = updates if params is None else params
        mean, _, state = average_in_dtype(channel, updates, state, like)

        def in_its_dtype(leaf: jax.Array, update: jax.Array) -> jax.Array:
            return leaf.astype(jnp.result_type(update))

        return jax.tree.map(in_its_dtype, mean, updates), state

    return optax.GradientTransformationExtraArgs(init, update)
