"""Accumulates gradients, and communicates only when their mean is complete."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmc_jax.core import Tree, with_hooks
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.trees import is_floating, mean_of, scale_floats, shares, upcast


@with_hooks
class AccumulateState(NamedTuple):
    """The state of accumulation.

    Attributes:
      mini_step: int32, updates since the last mean.
      total: the sum of these updates, each multiplied by a share so that the sum stays
        finite (see `trees.shares`); float32 for 16-bit trees. It differs between
        workers.
      inner: the state of the inner transformation.
    """

    mini_step: jax.Array
    total: Tree
    inner: Tree

    def conserved(self) -> Tree:
        """The sum has not reached the inner transformation yet."""
        return self.total


@call_repr
def accumulate(
    inner: optax.GradientTransformation, period: int
) -> optax.GradientTransformationExtraArgs:
    """Passes the mean of `period` updates to `inner`; the updates in between are zero.

    The inner update, and with it all communication, is a branch of a conditional that
    all workers take at the same steps. `optax.MultiSteps` computes the same numbers,
    but runs the inner update at every step and selects afterwards, so it communicates
    at every step.

    Args:
      inner: the whole method, so that its schedule counts means.
      period: updates in a mean, at least 1.

    Returns:
      A transformation in the units of `inner`, with `AccumulateState`.

    Raises:
      TypeError: if `inner` is not a transformation.
      ValueError: if `period` is not a whole number of at least 1.

    Guarantees:
      With gradients that are means over mini-batches it equals `inner` on batches that
      are `period` times as large, to rounding.
      The steps in between send nothing.
    """
    checks.transformation(inner=inner)
    checks.steps(period=period)
    inner = optax.with_extra_args_support(inner)
    # An injected period may change while the sum grows; then updates are not scaled.
    known = isinstance(period, int)
    share, divisor = shares(period) if known else (1.0, 1.0)

    def init(params):
        inner_state = inner.init(params)
        # Not `zeros_to_accumulate`: leaves that `inner` masks may be integers.
        total = optax.tree.zeros_like(upcast(params))
        return AccumulateState(jnp.zeros((), jnp.int32), total, inner_state)

    def update(updates, state, params=None, **extra_args):
        total = optax.tree.add(state.total, scale_floats(upcast(updates), share))
        count = state.mini_step + 1

        def mean(leaf: jax.Array, like: jax.Array) -> jax.Array:
            scaled = known and is_floating(leaf)
            mean = mean_of(leaf, divisor) if scaled else leaf / count
            return mean.astype(jnp.result_type(like))

        def pass_on() -> tuple[Tree, Tree, Tree]:
            mean_update = jax.tree.map(mean, total, updates)
            out, inner_state = inner.update(
                mean_update, state.inner, params, **extra_args
            )
            return out, optax.tree.zeros_like(total), inner_state

        def wait() -> tuple[Tree, Tree, Tree]:
            out, _, _ = jax.eval_shape(pass_on)
            return optax.tree.zeros_like(out), total, state.inner

        # Not equality: an injected `period` may fall below the count.
        complete = count >= period
        out, total, inner_state = jax.lax.cond(complete, pass_on, wait)
        mini_step = jnp.where(complete, 0, count)
        return out, AccumulateState(mini_step, total, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)
