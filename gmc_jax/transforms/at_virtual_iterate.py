"""Evaluation at the virtual iterate: the parameters plus the mean residual."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import optax

from gmc_jax.core import Tree, with_hooks
from gmc_jax.transforms.error_feedback import feedback_in, shift_by_residual
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.jaxprs import mark_updated


@with_hooks
class AtVirtualIterateState(NamedTuple):
    """The state of a transformation that is evaluated at its virtual iterate.

    Attributes:
      inner: the state of the inner transformation; it holds the residual.
    """

    inner: Tree

    def evaluate(self, params: Tree) -> Tree:
        """The virtual iterate: params + residual, both means over workers here."""
        feedback = feedback_in(self.inner, "at_virtual_iterate")
        return shift_by_residual(params, feedback, jnp.ones((), jnp.result_type(float)))


@call_repr
def at_virtual_iterate(
    inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Evaluates the model where it would be if all workers sent their residuals.

    Training is that of `inner`. `gmc_jax.evaluate(opt_state, params, layout)` returns
    `params + mean over k of the residual`. Papers write it as x - mean of e_k; here
    residuals are in units of steps and signed as updates are. On several devices the
    mean is one dense average, computed at evaluations only.

    Args:
      inner: a method that contains exactly one `error_feedback`. Its residual must be
        in units of steps: a learning rate stands in front of it.

    Returns:
      A transformation that passes updates through `inner`, with
      `AtVirtualIterateState`.

    Raises:
      TypeError: if `inner` is not a transformation.
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
