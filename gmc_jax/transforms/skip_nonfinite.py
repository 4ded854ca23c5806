"""Skips steps in which the updates of some worker are not finite."""

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
    share_of_workers,
    update_or_skip,
)
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.jaxprs import mark_updated


class SkipNonfiniteState(NamedTuple):
    """The state of `skip_nonfinite`.

    Attributes:
      skipped: int32, steps skipped so far; the same on all workers.
      inner: the state of the inner transformation.
    """

    skipped: jax.Array
    inner: Tree


@call_repr
def skip_nonfinite(
    inner: optax.GradientTransformation, *, axis_name: str = "workers"
) -> optax.GradientTransformationExtraArgs:
    """Skips a step on all workers if the updates of any worker are not finite.

    A skipped step returns zero updates. The state of `inner` does not change,
    residuals and schedules included. To take the step without the broken workers, use
    `leave_out_nonfinite`.

    All workers also skip the step if `inner` turns finite updates into updates that are
    not finite, on any worker: the sum of two large numbers, such as an update and a
    residual, may be infinite.

    `optax.apply_if_finite` decides on each worker's own gradients, so workers take
    different branches. Parameters drift apart, and on several devices the program hangs
    in a collective that some devices never enter.

    Args:
      inner: the whole method.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A transformation in the units of `inner`, with `SkipNonfiniteState`. It sends two
      more float32 in a step, and only one in a step that is skipped before `inner`.

    Raises:
      NameError: from the update where no such axis is in scope.
      TypeError: if `inner` is not a transformation.

    Example:
      >>> import gmc_jax
      >>> channel = gmc_jax.all_gather(gmc_jax.top_k(0.01))
      >>> tx = gmc_jax.skip_nonfinite(gmc_jax.gmc(0.1, channel))

    Guarantees:
      All workers skip the same steps. State that is the same on all workers stays so.
      With finite updates, into `inner` and out of it, it is `inner`, bit for bit.
      Its updates are finite.
    """
    checks.transformation(inner=inner)
    checks.axis(axis_name=axis_name)
    inner = optax.with_extra_args_support(inner)
    vote = exact(axis_name=axis_name)

    def init(params):
        return SkipNonfiniteState(jnp.zeros((), jnp.int32), inner.init(params))

    def update(updates, state, params=None, **extra_args):
        workers_on(axis_name, "skip_nonfinite")
        any_nonfinite = share_of_workers(has_nonfinite(updates), vote) > 0
        out, inner_state, skipped = update_or_skip(
            lambda: inner.update(updates, state.inner, params, **extra_args),
            state.inner,
            any_nonfinite,
            vote,
        )
        count = state.skipped + skipped.astype(jnp.int32)
        return out, mark_updated(SkipNonfiniteState(count, inner_state))

    return optax.GradientTransformationExtraArgs(init, update)
