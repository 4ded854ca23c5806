"""Accumulating gradients, and communicating only when they are complete."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmc_jax import checks
from gmc_jax.core import Tree
from gmc_jax.trees import (
    mean_of,
    scale_floats,
    shares,
    widen,
    zeros_to_accumulate,
)


class AccumulateState(NamedTuple):
    """The state of accumulation.

    Attributes:
      mini_step: int32, updates since the last that was passed on.
      total: their sum times the share that each has in a mean (see `trees.shares`), in
        float32 for 16-bit trees; differs between workers.
      inner: the state of the inner transformation.
    """

    mini_step: jax.Array
    total: Tree
    inner: Tree


def accumulate(
    inner: optax.GradientTransformation, every: int
) -> optax.GradientTransformationExtraArgs:
    """Passes the mean of `every` updates on to `inner`, and zeros in between.

    The inner update, and with it all communication, is a branch of a conditional that
    all workers take at the same steps. `optax.MultiSteps` gives the same numbers but
    runs the inner update at every step and selects afterwards: all the traffic.

    Args:
      inner: the whole method, so that its schedule counts the updates passed on.
      every: how many updates make one, at least 1.

    Returns:
      A transformation in the units of `inner`, with `AccumulateState`.

    Raises:
      ValueError: if `every` is not a whole number of at least 1.

    Guarantees:
      With gradients that are means over mini-batches it equals `inner` on batches that
      are `every` times as large, to rounding.
      Nothing is sent in the steps between.
    """
    checks.positive(every=every)
    inner = optax.with_extra_args_support(inner)
    share, rest = shares(every)

    def init(params):
        return AccumulateState(
            jnp.zeros((), jnp.int32), zeros_to_accumulate(params), inner.init(params)
        )

    def update(updates, state, params=None, **extra_args):
        total = optax.tree.add(state.total, scale_floats(widen(updates), share))

        def pass_on() -> tuple[Tree, Tree, Tree]:
            mean = jax.tree.map(
                lambda leaf, like: mean_of(leaf, rest).astype(like.dtype),
                total,
                updates,
            )
            out, inner_state = inner.update(mean, state.inner, params, **extra_args)
            return out, optax.tree.zeros_like(total), inner_state

        def wait() -> tuple[Tree, Tree, Tree]:
            out, _, _ = jax.eval_shape(pass_on)
            return optax.tree.zeros_like(out), total, state.inner

        complete = state.mini_step + 1 == every
        out, total, inner_state = jax.lax.cond(complete, pass_on, wait)
        mini_step = jnp.where(complete, 0, state.mini_step + 1)
        return out, AccumulateState(mini_step, total, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)
