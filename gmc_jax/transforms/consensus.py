"""Parameters that workers average with each other, before or after their own step."""

import jax
import optax

from gmc_jax import checks
from gmc_jax.core import Channel, Tree
from gmc_jax.transforms.error_feedback import average_as
from gmc_jax.trees import widen


def adapt_then_combine(channel: Channel) -> optax.GradientTransformationExtraArgs:
    """Each worker steps, then all average where they have come to.

        x_i <- sum over j of W_ij (x_j + u_j)

    The last in its chain; u are updates, signed as optax has them.

    Args:
      channel: what averages parameters, such as `gossip(topology)`.

    Returns:
      A transformation in units of steps, whose state is the channel's. Parameters, and
      so its updates, differ between workers.

    Raises:
      ValueError: from the update if it is called without parameters.

    Guarantees:
      The mean over workers of x moves by the mean of u.
      Through `exact()` workers that start alike stay alike, to rounding.

    References:
      Lian et al., "Can Decentralized Algorithms Outperform Centralized Algorithms?",
      NeurIPS 2017; the name is Cattivelli and Sayed's, 2010.
    """
    checks.channel(channel=channel)

    def init(params):
        return channel.init(params)

    def update(updates, state, params=None, **extra_args):
        del extra_args
        start = given(params, "adapt_then_combine")
        ahead = optax.tree.add(widen(start), widen(updates))
        mean, _, state = average_as(channel, ahead, state, start)
        return lead(start, mean), state

    return optax.GradientTransformationExtraArgs(init, update)


def combine_then_adapt(channel: Channel) -> optax.GradientTransformationExtraArgs:
    """All average their parameters, then each adds its own step.

        x_i <- sum over j of W_ij x_j + u_i

    The last in its chain; u are updates, signed as optax has them, of gradients that
    were taken at x_i: averaging and the gradient can overlap.

    Args:
      channel: what averages parameters, such as `gossip(topology)`.

    Returns:
      A transformation in units of steps, whose state is the channel's. Parameters, and
      so its updates, differ between workers.

    Raises:
      ValueError: from the update if it is called without parameters.

    Guarantees:
      The mean over workers of x moves by the mean of u.

    References:
      Lian et al., "Can Decentralized Algorithms Outperform Centralized Algorithms?",
      NeurIPS 2017, Algorithm 1.
    """
    checks.channel(channel=channel)

    def init(params):
        return channel.init(params)

    def update(updates, state, params=None, **extra_args):
        del extra_args
        start = given(params, "combine_then_adapt")
        mean, _, state = average_as(channel, widen(start), state, start)
        return optax.tree.add(lead(start, mean), widen(updates)), state

    return optax.GradientTransformationExtraArgs(init, update)


def given(params: Tree, caller: str) -> Tree:
    """The parameters, or an error where there are none."""
    if params is None:
        raise ValueError(
            f"`{caller}` averages parameters, so it must be given them: "
            "`tx.update(grads, opt_state, params)`."
        )
    return params


def lead(start: Tree, end: Tree) -> Tree:
    """The updates that lead from one point to another."""
    return jax.tree.map(lambda z, x: z - x, end, widen(start))
