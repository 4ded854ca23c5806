"""Delayed synchronisation: the mean of what was sent arrives a period later."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmc_jax.core import Channel, Tree, with_hooks
from gmc_jax.transforms._late_average import late_average
from gmc_jax.transforms._params import require_params
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.jaxprs import mark_updated
from gmc_jax.utils.trees import (
    map_unmasked,
    upcast,
    upcast_floating,
    zeros_to_accumulate,
)


@with_hooks
class DelayedSyncState(NamedTuple):
    """The state of delayed synchronisation; float32 for 16-bit trees.

    Attributes:
      step: int32, updates since the last synchronisation.
      anchor: z, the mean that arrived last; the same on all workers.
      sent: s_i - z, from the anchor to the point that this worker sent at the last
        synchronisation. It is in flight, and differs between workers.
      channel: the state of the channel.
    """

    step: jax.Array
    anchor: Tree
    sent: Tree
    channel: Tree

    def on_sync(self, start: Tree, end: Tree) -> DelayedSyncState:
        """As if this worker had sent the point that a synchronisation moved it to."""
        del start
        sent = map_unmasked(lambda z, new: new - z, self.anchor, end)
        return self._replace(sent=sent)

    def conserved(self) -> Tree:
        """The anchor and what is in flight are points, not buffers."""
        return self.anchor, self.sent, self.channel


@call_repr
def delayed_sync(
    channel: Channel, period: int
) -> optax.GradientTransformationExtraArgs:
    """Averages parameters; the mean arrives a period after they were sent.

        x_i <- x_i + u_i
        after every `period` updates:
        z <- z + mean over j of C(s_j - z)                the mean of the points s_j
        x_i <- x_i + (mean over j of C(s_j - z) - C(s_i - z));  s_i <- x_i

    u_i are updates, signed as in optax, and C is what the channel sends. Through
    `exact()` a worker moves to the mean of the points that all sent a period before,
    plus all that it has moved itself since then. What a lossy channel loses of a
    worker's difference to z stays in its x_i, and is part of what it sends next. That
    is error feedback without a residual.

    What is exchanged lies in the state before the update, so the exchange may run
    beside the gradient. Whether it does is up to XLA. The exchange is a branch of a
    conditional that all workers take at the same updates. The updates in between send
    nothing. It stands last in its chain.

    Args:
      channel: averages the differences to z over workers.
      period: updates between two synchronisations, at least 1. It is the delay, too.

    Returns:
      A transformation in units of steps, with `DelayedSyncState`. Parameters and
      updates differ between workers: evaluate the model at their mean,
      `gmc_jax.evaluate`.

    Raises:
      TypeError: if `channel` is not a channel.
      ValueError: if `period` is not a whole number of at least 1; from the update if it
        is called without parameters.

    Guarantees:
      The mean over workers of x_i moves by the mean of u_i at every update, for any
        channel: synchronisations do not move it.
      No operand of a collective depends on the updates or parameters of this call.
      z is the same on all workers, bit for bit, where the channel's mean is.

    References:
      Shen et al., "Faster Distributed Deep Net Training: Computation and Communication
      Decoupled Stochastic Gradient Descent", IJCAI 2019.
    """
    checks.channel(channel=channel)
    checks.steps(period=period)

    def init(params):
        checks.floating(params)
        return DelayedSyncState(
            step=jnp.zeros((), jnp.int32),
            # A copy: the loop may donate the parameters' own memory.
            anchor=jax.tree.map(jnp.array, upcast(params)),
            sent=zeros_to_accumulate(params),
            channel=channel.init(params),
        )

    def update(updates, state, params=None, **extra_args):
        del extra_args
        start = upcast(require_params("delayed_sync", params))
        updates = upcast_floating(updates)
        # Not equality: an injected `period` may fall below the count.
        due = state.step + 1 >= period
        mean, lost, channel_state = late_average(
            due, channel, state.sent, state.channel, params
        )

        def merge() -> tuple[Tree, Tree, Tree]:
            anchor = optax.tree.add(state.anchor, mean)
            out = jax.tree.map(
                lambda u, m, s, e: u + (m - (s - e)), updates, mean, state.sent, lost
            )
            sent = jax.tree.map(lambda x, u, z: x + u - z, start, out, anchor)
            return out, anchor, sent

        def stay_local() -> tuple[Tree, Tree, Tree]:
            return updates, state.anchor, state.sent

        out, anchor, sent = jax.lax.cond(due, merge, stay_local)
        step = jnp.where(due, 0, state.step + 1)
        return out, mark_updated(DelayedSyncState(step, anchor, sent, channel_state))

    return optax.GradientTransformationExtraArgs(init, update)
