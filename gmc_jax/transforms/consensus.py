"""Averages parameters over workers, before or after each worker's own step."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._average_in_dtype import average_in_dtype
from gmc_jax.transforms._params import difference, require_params
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.trees import upcast, upcast_floating


@call_repr
def adapt_then_combine(channel: Channel) -> optax.GradientTransformationExtraArgs:
    """Each worker takes its step, then all workers average their parameters.

        x_i <- sum over j of W_ij (x_j + u_j)

    It stands last in its chain; u are updates, signed as in optax.

    Args:
      channel: averages the parameters, such as `gossip(topology)`. It must have no
        delay; with a delay use `push_sum`.

    Returns:
      A transformation in units of steps, whose state is the channel's. Parameters
      differ between workers, and so do its updates.

    Raises:
      TypeError: if `channel` is not a channel.
      ValueError: from the update if it is called without parameters.

    Guarantees:
      The mean over workers of x moves by the mean of u, if no message is in flight.
      Through `exact()` workers that start equal stay equal, to rounding.

    References:
      Lian et al., "Can Decentralized Algorithms Outperform Centralized Algorithms?",
      NeurIPS 2017; the name is Cattivelli and Sayed's, 2010.
    """
    checks.channel(channel=channel)

    def init(params):
        return channel.init(params)

    def update(updates, state, params=None, **extra_args):
        del extra_args
        start = require_params("adapt_then_combine", params)
        ahead = optax.tree.add(upcast(start), upcast_floating(updates))
        mean, _, state = average_in_dtype(channel, ahead, state, start)
        return difference(start, mean), state

    return optax.GradientTransformationExtraArgs(init, update)


@call_repr
def combine_then_adapt(channel: Channel) -> optax.GradientTransformationExtraArgs:
    """All workers average their parameters, then each adds its own step.

        x_i <- sum over j of W_ij x_j + u_i

    It stands last in its chain; u are updates, signed as in optax, from gradients that
    were taken at x_i. So averaging can overlap with the gradient.

    Args:
      channel: averages the parameters, such as `gossip(topology)`. It must have no
        delay; with a delay use `push_sum`.

    Returns:
      A transformation in units of steps, whose state is the channel's. Parameters
      differ between workers, and so do its updates.

    Raises:
      TypeError: if `channel` is not a channel.
      ValueError: from the update if it is called without parameters.

    Guarantees:
      The mean over workers of x moves by the mean of u, if no message is in flight.

    References:
      Lian et al., "Can Decentralized Algorithms Outperform Centralized Algorithms?",
      NeurIPS 2017, Algorithm 1.
    """
    checks.channel(channel=channel)

    def init(params):
        return channel.init(params)

    def update(updates, state, params=None, **extra_args):
        del extra_args
        start = require_params("combine_then_adapt", params)
        mean, _, state = average_in_dtype(channel, upcast(start), state, start)
        return optax.tree.add(difference(start, mean), upcast_floating(updates)), state

    return optax.GradientTransformationExtraArgs(init, update)
