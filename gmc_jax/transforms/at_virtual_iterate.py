"""Judging the model as if all that is owed were sent."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import optax

from gmc_jax.core import Tree, with_hooks
from gmc_jax.transforms.detached import along, feedback_in
from gmc_jax.utils import checks
from gmc_jax.utils.described import described
from gmc_jax.utils.jaxprs import mark_updated


@with_hooks
class AtVirtualIterateState(NamedTuple):
    """The state of a settled transformation.

    Attributes:
      inner: the state of the inner transformation; it holds the residual.
    """

    inner: Tree

    def evaluate(self, params: Tree) -> Tree:
        """The point to judge: params + residual, here averaged over workers."""
        feedback = feedback_in(self.inner, "at_virtual_iterate")
        return along(params, feedback, jnp.ones((), jnp.result_type(float)))


@described
def at_virtual_iterate(
    inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Judges the model where it would be if all workers sent what they owe.

    Training is that of `inner`. `gmc_jax.evaluate(opt_state, params, layout)` gives
    `params + mean over k of the residual`, which is x - mean of e_k in the letters of
    papers: residuals are in units of steps here, signed as updates are. On devices the
    mean is one dense average, at evaluations only.

    Args:
      inner: a method that contains exactly one `error_feedback`, its residual in units
        of steps: a learning rate stands in front of it.

    Returns:
      A transformation that passes updates through `inner`, with
      `AtVirtualIterateState`.

    Raises:
      TypeError: if `inner` is no transformation.
      ValueError: from `init` if `inner` does not contain exactly one `error_feedback`.

    Guarantees:
      The updates are those of `inner`, and so is the point of the next gradient.
    """
    checks.transformation(inner=inner)
    inner = optax.with_extra_args_support(inner)

    def init(params):
        inner_state = inner.init(params)
        feedback_in(inner_state, "at_virtual_iterate")
        return AtVirtualIterateState(inner_state)

    def update(updates, state, params=None, **extra_args):
        updates, inner_state = inner.update(updates, state.inner, params, **extra_args)
        return updates, mark_updated(AtVirtualIterateState(inner_state))

    return optax.GradientTransformationExtraArgs(init, update)
