"""Averaging over workers as an optax transformation."""

import jax
import optax

from gmc_jax.core import Channel


def averaged(channel: Channel) -> optax.GradientTransformationExtraArgs:
    """Replaces each worker's updates by the channel's average of them.

    What a lossy channel loses is lost for good; see `error_feedback`.

    Args:
      channel: what averages.

    Returns:
      A transformation in any units, whose state is the channel's.

    Example:
      Momentum SGD on the mean gradient:

      >>> import gmc_jax, optax
      >>> tx = optax.chain(
      ...     gmc_jax.averaged(gmc_jax.exact()), optax.trace(0.9), optax.scale(-0.1)
      ... )

    Guarantees:
      Updates keep their dtypes.
    """

    def init(params):
        return channel.init(params)

    def update(updates, state, params=None, **extra_args):
        del params, extra_args
        mean, _, state = channel.average(updates, state)
        mean = jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), mean, updates)
        return mean, state

    return optax.GradientTransformationExtraArgs(init, update)
