"""Sending what changed since the last message."""

from __future__ import annotations

from typing import NamedTuple

import optax

from gmc_jax.core import Channel, Tree, with_hooks
from gmc_jax.transforms._average_in_dtype import average_in_dtype
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.trees import upcast_floating, zeros_to_accumulate


@with_hooks
class SendDifferencesState(NamedTuple):
    """The state of sent differences.

    Attributes:
      sent: g_k, what the others know of this worker's updates; float32 for 16-bit
        trees. It differs between workers.
      mean: g, the mean over workers of g_k, the same on all workers.
      channel: the state of the channel.
    """

    sent: Tree
    mean: Tree
    channel: Tree

    def conserved(self) -> Tree:
        """All of it: the next difference starts from what was sent."""
        return self.sent, self.mean, self.channel


@call_repr
def send_differences(channel: Channel) -> optax.GradientTransformationExtraArgs:
    """Sends the difference between the updates and what is known of them (EF21).

        c_k = C(u_k - g_k);  g_k <- g_k + c_k;  g <- g + mean over k of c_k;  out = g

    `error_feedback` adds what was lost to the next updates, however old it is. Here a
    worker sends what its last message lacks of its present updates, and what was lost
    of old updates is never sent. If the updates converge, the differences vanish, and
    so does what a compressor loses of them.

    Values travel in the dtypes of the parameters, as in `error_feedback`.

    Args:
      channel: averages the differences. What it loses must be less than the tree, as
        `top_k` does, or the estimates do not approach the updates.

    Returns:
      A transformation in any units, with `SendDifferencesState`. Its updates are the
      mean estimate, in float32 for 16-bit trees. Put an optimizer of optax that follows
      it into `with_float32_state`.

    Raises:
      TypeError: if `channel` is not a channel.

    Guarantees:
      The output is the mean over workers of g_k, to rounding, for any channel.
      Through `exact()` it is the mean of the updates.

    References:
      Richtarik, Sokolov and Fatkhullin, "EF21: A New, Simpler, Theoretically Better,
      and Practically Faster Error Feedback", NeurIPS 2021: Algorithm 2.
    """
    checks.channel(channel=channel)

    def init(params):
        return SendDifferencesState(
            zeros_to_accumulate(params),
            zeros_to_accumulate(params),
            channel.init(params),
        )

    def update(updates, state, params=None, **extra_args):
        del extra_args
        like = updates if params is None else params
        wide = upcast_floating(updates)
        gap = optax.tree.sub(wide, state.sent)
        mean, lost, inner = average_in_dtype(channel, gap, state.channel, like)
        # In this order an entry that was not sent keeps its bits.
        sent = optax.tree.add(state.sent, optax.tree.sub(gap, lost))
        out = optax.tree.add(state.mean, mean)
        return out, SendDifferencesState(sent, out, inner)

    return optax.GradientTransformationExtraArgs(init, update)
