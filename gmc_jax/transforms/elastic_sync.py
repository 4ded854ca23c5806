"""Elastic synchronisation: workers and a centre attract each other periodically."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmc_jax.channels._axis import workers_on
from gmc_jax.core import Channel, Tree, with_hooks
from gmc_jax.transforms._average_in_dtype import average_in_dtype
from gmc_jax.transforms._params import require_params
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.jaxprs import mark_updated
from gmc_jax.utils.trees import times, upcast, upcast_floating, update_unmasked


@with_hooks
class ElasticSyncState(NamedTuple):
    """The state of elastic synchronisation; float32 for 16-bit trees.

    Attributes:
      step: int32, updates since the last synchronisation.
      centre: c, the same on all workers.
      channel: the state of the channel.
    """

    step: jax.Array
    centre: Tree
    channel: Tree

    def evaluate(self, params: Tree) -> Tree:
        """The centre."""

        def in_its_dtype(leaf: jax.Array, centre: jax.Array) -> jax.Array:
            return centre.astype(jnp.result_type(leaf))

        return update_unmasked(in_its_dtype, params, self.centre)

    def conserved(self) -> Tree:
        """The centre is a point, not a buffer."""
        return self.centre, self.channel


@call_repr
def elastic_sync(
    channel: Channel, centre_rate: float, period: int
) -> optax.GradientTransformationExtraArgs:
    """Moves workers towards a centre, and the centre towards them, periodically.

        x_i <- x_i + u_i
        after every `period` updates, where alpha = centre_rate / K for K workers:
        d_i = alpha (x_i - c);  x_i <- x_i - d_i;  c <- c + sum over i of d_i

    u_i are updates, signed as in optax. The centre moves a part of the way to the
    workers' mean: c <- c + centre_rate * (mean over i of x_i - c). What a lossy channel
    loses of x_i - c moves neither worker nor centre, and remains part of their next
    difference.

    The synchronisation is a branch of a conditional that all workers take at the same
    updates. The updates in between send nothing. It stands last in its chain.

    Args:
      channel: averages the differences x_i - c over workers.
      centre_rate: beta in the paper, in [0, 1].
      period: updates between two synchronisations, at least 1.

    Returns:
      A transformation in units of steps, with `ElasticSyncState`. Parameters and
      updates differ between workers. `gmc_jax.evaluate` returns the centre.

    Raises:
      TypeError: if `channel` is not a channel.
      ValueError: if `centre_rate` is not in [0, 1], or `period` is not a whole number
        of at least 1; from the update if it is called without parameters.

    Guarantees:
      The centre is the same on all workers, bit for bit, where the channel's mean is.
      The sum of all x_i and c moves by the sum of all u_i, for any channel.
      Between synchronisations updates pass through unchanged.

    References:
      Zhang, Choromanska and LeCun, "Deep Learning with Elastic Averaging SGD", NeurIPS
      2015.
    """
    checks.channel(channel=channel)
    checks.proportion(centre_rate=centre_rate)
    checks.steps(period=period)

    def init(params):
        checks.floating(params)
        return ElasticSyncState(
            step=jnp.zeros((), jnp.int32),
            # A copy: the loop may donate the parameters' own memory.
            centre=jax.tree.map(jnp.array, upcast(params)),
            channel=channel.init(params),
        )

    def update(updates, state, params=None, **extra_args):
        del extra_args
        require_params("elastic_sync", params)
        updates = upcast_floating(updates)
        alpha = centre_rate / workers_on(channel.axis_name, "elastic_sync")

        def synchronise() -> tuple[Tree, Tree, Tree]:
            apart = jax.tree.map(
                lambda x, u, c: x + u - c, upcast(params), updates, state.centre
            )
            mean, lost, channel_state = average_in_dtype(
                channel, apart, state.channel, params
            )
            centre = jax.tree.map(
                lambda c, m: c + times(centre_rate, m), state.centre, mean
            )
            out = jax.tree.map(
                lambda u, d, e: u - times(alpha, d - e), updates, apart, lost
            )
            return out, centre, channel_state

        def stay_local() -> tuple[Tree, Tree, Tree]:
            return updates, state.centre, state.channel

        # Not equality: an injected `period` may fall below the count.
        due = state.step + 1 >= period
        out, centre, channel_state = jax.lax.cond(due, synchronise, stay_local)
        step = jnp.where(due, 0, state.step + 1)
        return out, mark_updated(ElasticSyncState(step, centre, channel_state))

    return optax.GradientTransformationExtraArgs(init, update)
