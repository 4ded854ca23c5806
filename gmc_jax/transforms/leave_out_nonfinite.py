"""Takes steps without the workers whose updates are not finite."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmc_jax.channels._axis import workers_on
from gmc_jax.channels.exact import exact
from gmc_jax.core import Tree
from gmc_jax.transforms._nonfinite import (
    has_nonfinite,
    is_inexact,
    share_of_workers,
    update_or_skip,
)
from gmc_jax.transforms.periodic import PeriodicState
from gmc_jax.transforms.streaming import StreamingState
from gmc_jax.transforms.variance_reduced import VarianceReducedState
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.jaxprs import mark_updated
from gmc_jax.utils.trees import downcast, find, is_floating, upcast


class LeaveOutNonfiniteState(NamedTuple):
    """The state of `leave_out_nonfinite`.

    Attributes:
      skipped: int32, steps skipped so far; the same on all workers.
      left_out: int32, steps that were taken without this worker's updates; it differs
        between workers.
      inner: the state of the inner transformation.
    """

    skipped: jax.Array
    left_out: jax.Array
    inner: Tree


@call_repr
def leave_out_nonfinite(
    inner: optax.GradientTransformation, *, axis_name: str = "workers"
) -> optax.GradientTransformationExtraArgs:
    """Takes the step with the mean over the workers whose updates are finite.

    Of K workers, F have finite updates g_k. `inner` receives

        g_k <- (K / F) g_k  where g_k is finite, and 0 where it is not

    so the mean over all K workers is the mean over the F. Where F = 0 all workers skip
    the step: updates are zero, and the state of `inner` does not change.

    All workers also skip the step if `inner` turns finite updates into updates that are
    not finite, on any worker: the sum of two large numbers, such as an update and a
    residual, may be infinite.

    What this does inside `inner`, always in the mean over workers:

    * Residuals: all workers still send and keep theirs. The mean of residual + out
      grows by the mean over the F. A worker's own residual holds (K / F) times the loss
      of compressing its own update.
    * Each worker's own momentum (`dmsgd_local`, `dgc`, `cser`, `d_psgd`): the momentum
      of a worker that is left out decays by one step. The other momenta add
      (K / F) g_k, so their mean adds the mean over the F.
    * Neighbours (`d_psgd`, `sgp`, `d2`): the mean of all parameters moves by the mean
      over the F. A worker's own parameters move by (K / F) of its step, until
      neighbours have averaged it.
    * Votes: a sign ignores the factor, and every worker votes. A worker that is left
      out votes with its momentum (`signum`). Without a momentum it votes plus
      (`sign_sgd`); among many workers that is one vote.
    * Local steps: these must not be scaled, since each moves one worker alone. So
      `init` refuses `periodic` and the methods made of it (`local_sgd`, `slowmo`,
      `diloco`, ...). Nor may `leave_out_nonfinite` stand inside `periodic`, around an
      inner optimizer that does not communicate. Use `skip_nonfinite` in its place.
    * Variance reduction: `init` refuses `variance_reduced`, which compares the updates
      with gradients that are not scaled. Use `skip_nonfinite`.

    Args:
      inner: the whole method.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A transformation in the units of `inner`, with `LeaveOutNonfiniteState`. It sends
      two more float32 in a step, and only one in a step that is skipped before `inner`.

    Raises:
      NameError: from the update where no such axis is in scope.
      TypeError: if `inner` is not a transformation.
      ValueError: from `init` if `inner` takes local steps, or reduces variance.

    Example:
      >>> import gmc_jax
      >>> channel = gmc_jax.all_gather(gmc_jax.top_k(0.01))
      >>> tx = gmc_jax.leave_out_nonfinite(gmc_jax.gmc(0.1, channel))

    Guarantees:
      All workers skip the same steps. State that is the same on all workers stays so.
      With finite updates, into `inner` and out of it, it is `inner`, bit for bit.
      Its updates are finite.
      The mean through a channel is that over the workers whose updates are finite. No
        worker receives any part of the other workers' updates.
    """
    checks.transformation(inner=inner)
    checks.axis(axis_name=axis_name)
    inner = optax.with_extra_args_support(inner)
    vote = exact(axis_name=axis_name)

    def init(params):
        inner_state = inner.init(params)
        _check_scalable(inner_state)
        zero = jnp.zeros((), jnp.int32)
        return LeaveOutNonfiniteState(zero, zero, inner_state)

    def update(updates, state, params=None, **extra_args):
        workers = workers_on(axis_name, "leave_out_nonfinite")
        nonfinite = has_nonfinite(updates)
        share = share_of_workers(nonfinite, vote)
        all_nonfinite = share == 1
        num_finite = workers - jnp.round(workers * share)
        factor = workers / jnp.where(all_nonfinite, 1, num_finite)
        updates = _scale_or_zero(updates, nonfinite, factor)
        out, inner_state, skipped = update_or_skip(
            lambda: inner.update(updates, state.inner, params, **extra_args),
            state.inner,
            all_nonfinite,
            vote,
        )
        left_out = state.left_out + (nonfinite & ~skipped).astype(jnp.int32)
        count = state.skipped + skipped.astype(jnp.int32)
        new = LeaveOutNonfiniteState(count, left_out, inner_state)
        return out, mark_updated(new)

    return optax.GradientTransformationExtraArgs(init, update)


def _scale_or_zero(updates: Tree, nonfinite: jax.Array, factor: jax.Array) -> Tree:
    """Zero where this worker's updates are not finite; else the updates times a factor.

    Integers pass unchanged. The product stays within the range of floats.
    """

    def scale(leaf: jax.Array) -> jax.Array:
        if not is_inexact(leaf):
            return leaf
        wide = upcast(leaf)
        scaled = wide * factor.astype(wide.dtype)
        if is_floating(leaf):  # Complex numbers have no order, and no channel.
            most = jnp.finfo(wide.dtype).max
            scaled = jnp.clip(scaled, -most, most)
        return downcast(jnp.where(nonfinite, 0, scaled), leaf)

    return jax.tree.map(scale, updates)


def _check_scalable(state: Tree) -> None:
    local = "one that takes local steps, which move one worker alone"
    for kind, got in (
        (PeriodicState, local),
        (StreamingState, local),
        (
            VarianceReducedState,
            "one that compares gradients with those at a snapshot, which are not "
            "scaled",
        ),
    ):
        if find(state, kind):
            raise ValueError(
                "`inner` of `leave_out_nonfinite` must average gradients that may be "
                "scaled by the number of workers with finite updates, got "
                f"{got}. Use `skip_nonfinite(inner)`."
            )
