"""Partial synchronisation: workers differ by errors, averaged periodically."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmc_jax.core import Channel, Tree, with_hooks
from gmc_jax.transforms._average_in_dtype import average_in_dtype
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
class PartialSyncState(NamedTuple):
    """The state of partial synchronisation; float32 for 16-bit trees.

    Attributes:
      step: int32, updates since the errors were last reset.
      anchor: z = x_k - e_k, the parameters without the errors; the same on all workers.
      error: e_k, from the anchor to this worker's parameters; differs between workers.
      channel: the state of the channel.
      reset_channel: the state of the channel of the resets.
    """

    step: jax.Array
    anchor: Tree
    error: Tree
    channel: Tree
    reset_channel: Tree

    def on_sync(self, start: Tree, end: Tree) -> PartialSyncState:
        """A synchronisation moves this worker's error, not the common anchor."""
        error = map_unmasked(lambda e, x, new: e + (new - x), self.error, start, end)
        return self._replace(error=error)

    def conserved(self) -> Tree:
        """Anchor and error together are this worker's parameters."""
        return self.anchor, self.error, self.channel, self.reset_channel


@call_repr
def partial_sync(
    channel: Channel, reset_channel: Channel, period: int
) -> optax.GradientTransformationExtraArgs:
    """Averages what the channel sends; each worker applies the rest locally.

        x_k <- x_k + mean of C2(u) + (u_k - C2(u_k));  e_k <- e_k + u_k - C2(u_k)
        after every `period` updates:
        x_k <- x_k + mean of C1(e) - C1(e_k);          e_k <- e_k - C1(e_k)

    u_k are updates, signed as in optax. What workers send is averaged. What a worker
    does not send it applies at once to its own parameters. There is no residual to send
    later; instead parameters differ between workers, and the resets average these
    errors. The reset is a branch of a conditional that all workers take at the same
    updates. The updates in between send nothing of it.

    It stands last in its chain. x_k is kept as two sums: the anchor z = x_k - e_k,
    which moves by means alone, and e_k. The update that is returned moves the
    parameters to z + e_k. If each worker summed up x_k instead, its own rounding would
    move it away from the others, further at every step, and nothing would correct that.
    Two sums have two costs. The state holds one more vector, the same on all workers.
    And whatever else moves the parameters between two updates is undone: put weight
    decay in front, where it is part of the gradient, and call `init` again after
    changing the parameters by hand.

    For 16-bit trees the anchor and the errors are float32, and the parameters are their
    sum, rounded once. So small steps are not lost and workers do not drift. x_k - e_k,
    computed from the parameters, agrees with the anchor up to that rounding: 2^-9 of
    x_k in bfloat16. Values travel in the dtypes of the parameters, and are rounded to
    them before a compressor selects. e_k keeps what this rounding loses.

    Args:
      channel: C2, averages the updates; `drop_all()` for resets alone.
      reset_channel: C1, averages the errors. Give the two channels different seeds.
      period: updates between two resets of the errors, at least 1.

    Returns:
      A transformation in units of steps, with `PartialSyncState`. Updates and
      parameters differ between workers.

    Raises:
      TypeError: if `channel` or `reset_channel` is not a channel.
      ValueError: if the two channels average over different axes, or `period` is not a
        whole number of at least 1; from the update if it is called without parameters.

    Guarantees:
      The anchor is the same on all workers bit for bit. x_k - e_k is the anchor to two
        roundings of the parameters, after any number of steps.
      The mean over workers of x_k moves by the mean of u_k, for any two channels.
      The steps between two resets send nothing of the reset.

    References:
      Xie, Zheng, Koyejo, Gupta, Li and Lin, "CSER: Communication-efficient SGD with
      Error Reset", NeurIPS 2020.
    """
    checks.channel(channel=channel, reset_channel=reset_channel)
    checks.one_axis(channel=channel, reset_channel=reset_channel)
    checks.steps(period=period)

    def init(params):
        checks.floating(params)
        return PartialSyncState(
            step=jnp.zeros((), jnp.int32),
            # A copy: the loop may donate the parameters' own memory.
            anchor=jax.tree.map(jnp.array, upcast(params)),
            error=zeros_to_accumulate(params),
            channel=channel.init(params),
            reset_channel=reset_channel.init(params),
        )

    def update(updates, state, params=None, **extra_args):
        del extra_args
        require_params("partial_sync", params)
        mean, lost, channel_state = average_in_dtype(
            channel, upcast_floating(updates), state.channel, params
        )
        anchor = optax.tree.add(state.anchor, mean)
        error = optax.tree.add(state.error, lost)

        def reset() -> tuple[Tree, Tree, Tree]:
            mean, lost, reset_state = average_in_dtype(
                reset_channel, error, state.reset_channel, params
            )
            return optax.tree.add(anchor, mean), lost, reset_state

        def wait() -> tuple[Tree, Tree, Tree]:
            return anchor, error, state.reset_channel

        # Not equality: an injected `period` may fall below the count.
        due = state.step + 1 >= period
        anchor, error, reset_state = jax.lax.cond(due, reset, wait)
        out = jax.tree.map(lambda z, e, x: (z + e) - x, anchor, error, upcast(params))
        step = jnp.where(due, 0, state.step + 1)
        return out, mark_updated(
            PartialSyncState(step, anchor, error, channel_state, reset_state)
        )

    return optax.GradientTransformationExtraArgs(init, update)
