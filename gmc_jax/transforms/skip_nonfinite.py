"""Skipping a step that one worker's NaN or Inf would poison for all."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmc_jax.channels.exact import exact
from gmc_jax.core import Tree


class SkipNonfiniteState(NamedTuple):
    """The state of the guard.

    Attributes:
      skipped: int32, steps skipped so far; the same on all workers.
      inner: the state of the inner transformation.
    """

    skipped: jax.Array
    inner: Tree


def skip_nonfinite(
    inner: optax.GradientTransformation, *, axis_name: str = "workers"
) -> optax.GradientTransformationExtraArgs:
    """Lets all workers skip a step together when any worker's updates are not finite.

    The updates of a skipped step are zero and the state of `inner` stays as it was,
    residuals and schedules included. `optax.apply_if_finite` decides on each worker's
    own gradients, so that workers take different branches: parameters drift apart, and
    on several devices the program hangs in a collective that some never enter.

    Args:
      inner: the whole method.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A transformation in the units of `inner`, with `SkipNonfiniteState`. It sends one
      float32 more each step.

    Raises:
      NameError: from the update where no such axis is in scope.

    Guarantees:
      All workers skip the same steps.
      With finite updates it is `inner`.
    """
    inner = optax.with_extra_args_support(inner)
    vote = exact(axis_name=axis_name)

    def init(params):
        return SkipNonfiniteState(jnp.zeros((), jnp.int32), inner.init(params))

    def update(updates, state, params=None, **extra_args):
        leaves = jax.tree.leaves(updates)
        broken = [jnp.any(~jnp.isfinite(leaf)) for leaf in leaves]
        mine = jnp.any(jnp.array(broken, bool)).astype(jnp.float32)
        share, _, _ = vote.average(mine, vote.init(mine))

        def go() -> tuple[Tree, Tree]:
            return inner.update(updates, state.inner, params, **extra_args)

        def skip() -> tuple[Tree, Tree]:
            out, _ = jax.eval_shape(go)
            return optax.tree.zeros_like(out), state.inner

        out, inner_state = jax.lax.cond(share > 0, skip, go)
        skipped = state.skipped + (share > 0)
        return out, SkipNonfiniteState(skipped, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)
