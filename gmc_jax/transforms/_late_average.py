"""Averages of what was kept in the state, so that nothing waits for this update."""

import jax

from gmc_jax.core import Channel, Tree
from gmc_jax.transforms._average_in_dtype import average_in_dtype
from gmc_jax.utils.trees import zeros_to_accumulate


def late_average(
    due: jax.Array, channel: Channel, sent: Tree, state: Tree, params: Tree
) -> tuple[Tree, Tree, Tree]:
    """Averages what an earlier update kept, where it is due.

    It is a conditional of its own, whose operands are parts of the state from before
    the update. A conditional with the merge in it would wait for the gradients.

    Returns:
      The mean, what of `sent` was lost, and the state of the channel; where it is not
      due, zeros, zeros, and the state as it was.
    """

    def exchange() -> tuple[Tree, Tree, Tree]:
        return average_in_dtype(channel, sent, state, params)

    def wait() -> tuple[Tree, Tree, Tree]:
        return zeros_to_accumulate(sent), zeros_to_accumulate(sent), state

    return jax.lax.cond(due, exchange, wait)
