"""Pulls workers back to an anchor, the late mean of their parameters."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmc_jax.core import Channel, Tree, with_hooks
from gmc_jax.transforms._late_average import late_average
from gmc_jax.transforms._momentum import momentum_trace
from gmc_jax.transforms._params import require_params
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.jaxprs import mark_updated
from gmc_jax.utils.trees import (
    map_unmasked,
    times,
    upcast,
    upcast_floating,
    zeros_to_accumulate,
)


@with_hooks
class PullToAnchorState(NamedTuple):
    """The state of pulls to an anchor; float32 for 16-bit trees.

    Attributes:
      step: int32, updates since the last synchronisation.
      anchor: z, the same on all workers.
      momentum: the state of the anchor's momentum; the same on all workers.
      sent: s_i - z, from the anchor to the point that this worker sent at the last
        synchronisation. It is in flight, and differs between workers.
      channel: the state of the channel.
    """

    step: jax.Array
    anchor: Tree
    momentum: Tree
    sent: Tree
    channel: Tree

    def on_sync(self, start: Tree, end: Tree) -> PullToAnchorState:
        """As if this worker had sent the point that a synchronisation moved it to."""
        del start
        sent = map_unmasked(lambda z, new: new - z, self.anchor, end)
        return self._replace(sent=sent)

    def conserved(self) -> Tree:
        """The anchor and what is in flight are points, not buffers."""
        return self.anchor, self.sent, self.channel


@call_repr
def pull_to_anchor(
    channel: Channel, pull: float, period: int, *, decay: float | None = 0.0
) -> optax.GradientTransformationExtraArgs:
    """Pulls each worker to an anchor; the anchor follows what workers sent before.

        x_i <- x_i + u_i
        after every `period` updates:
        v <- decay * v + mean over j of (s_j - z);  z <- z + v
        x_i <- x_i - pull * (x_i - z);  s_i <- x_i

    u_i are updates, signed as in optax. s_i is what worker i sent at the last
    synchronisation. The mean of these points arrives at this one, so the anchor z lags
    by a period, and no worker waits for it. What a lossy channel loses of s_i - z does
    not move the anchor, and remains part of the next difference.

    What is exchanged lies in the state before the update, so the exchange may run
    beside the gradient. Whether it does is up to XLA. The exchange is a branch of a
    conditional that all workers take at the same updates. The updates in between send
    nothing. It stands last in its chain.

    Args:
      channel: averages the differences s_i - z over workers.
      pull: alpha in the paper, in [0, 1]. At 1 every worker returns to the start, and
        no update counts.
      period: updates between two synchronisations, at least 1. It is the delay, too.
      decay: beta in the paper, of the anchor's momentum v, in [0, 1); None means 0.

    Returns:
      A transformation in units of steps, with `PullToAnchorState`. Parameters and
      updates differ between workers: evaluate the model at their mean,
      `gmc_jax.evaluate`.

    Raises:
      TypeError: if `channel` is not a channel.
      ValueError: if `pull` is not in [0, 1], `decay` is not in [0, 1), or `period` is
        not a whole number of at least 1; from the update if it is called without
        parameters.

    Guarantees:
      Without `decay`, through `exact()`, a synchronisation leaves 1 - pull of all
        updates since the last one in the mean over workers of x_i.
      No operand of a collective depends on the updates or parameters of this call.
      z is the same on all workers, bit for bit, where the channel's mean is.

    References:
      Wang, Liang and Joshi, "Overlap Local-SGD: An Algorithmic Approach to Hide
      Communication Delays in Distributed SGD", ICASSP 2020.
    """
    checks.channel(channel=channel)
    checks.proportion(pull=pull)
    checks.steps(period=period)
    checks.momentum(decay=decay)
    trace = momentum_trace(decay)

    def init(params):
        checks.floating(params)
        return PullToAnchorState(
            step=jnp.zeros((), jnp.int32),
            # A copy: the loop may donate the parameters' own memory.
            anchor=jax.tree.map(jnp.array, upcast(params)),
            momentum=trace.init(params),
            sent=zeros_to_accumulate(params),
            channel=channel.init(params),
        )

    def update(updates, state, params=None, **extra_args):
        del extra_args
        start = upcast(require_params("pull_to_anchor", params))
        updates = upcast_floating(updates)
        # Not equality: an injected `period` may fall below the count.
        due = state.step + 1 >= period
        mean, _, channel_state = late_average(
            due, channel, state.sent, state.channel, params
        )

        def merge() -> tuple[Tree, Tree, Tree, Tree]:
            moved, momentum = trace.update(mean, state.momentum)
            anchor = optax.tree.add(state.anchor, moved)
            out = jax.tree.map(
                lambda u, x, z: u - times(pull, x + u - z), updates, start, anchor
            )
            sent = jax.tree.map(lambda x, u, z: x + u - z, start, out, anchor)
            return out, anchor, momentum, sent

        def stay_local() -> tuple[Tree, Tree, Tree, Tree]:
            return updates, state.anchor, state.momentum, state.sent

        out, anchor, momentum, sent = jax.lax.cond(due, merge, stay_local)
        step = jnp.where(due, 0, state.step + 1)
        return out, mark_updated(
            PullToAnchorState(step, anchor, momentum, sent, channel_state)
        )

    return optax.GradientTransformationExtraArgs(init, update)
