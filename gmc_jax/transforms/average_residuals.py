"""Error averaging: residuals are replaced by their mean over workers."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmc_jax.channels._calls import call
from gmc_jax.channels.exact import exact
from gmc_jax.core import Tree
from gmc_jax.transforms.error_feedback import ErrorFeedbackState, feedback_in
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


class AverageResidualsState(NamedTuple):
    """The state of error averaging.

    Attributes:
      step: int32, updates since the residuals were last averaged.
      inner: the state of the inner transformation; it holds the residual.
    """

    step: jax.Array
    inner: Tree


@call_repr
def average_residuals(
    inner: optax.GradientTransformation, period: int, *, axis_name: str = "workers"
) -> optax.GradientTransformationExtraArgs:
    """Replaces each residual by the mean of all, after every `period` updates.

        e_k <- mean over j of e_j

    The average is dense. It is a branch of a conditional that all workers take at the
    same steps, so it adds one dense message every `period` steps. The channel of
    `inner` does not count this message, so `gmc_jax.relative_cost` and
    `gmc_jax.message_bits` of that channel do not include it. `message_bits` of the
    transformation does.

    Args:
      inner: an `error_feedback`, or a transformation that contains exactly one.
      period: updates between two averages of the residuals, at least 1.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A transformation that passes updates through `inner`, in its units, with
      `AverageResidualsState`.

    Raises:
      TypeError: if `inner` is not a transformation.
      ValueError: if `period` is not a whole number of at least 1; from `init` if
        `inner` does not contain exactly one `error_feedback`.
      NameError: from the update where no such axis is in scope.

    Guarantees:
      The mean of the residuals is that of `inner` alone, to rounding.
      The steps between two averages send nothing of an average.

    References:
      Xu, Huo and Huang, "Step-Ahead Error Feedback for Distributed Training with
      Compressed Gradient", AAAI 2021.
    """
    checks.transformation(inner=inner)
    checks.steps(period=period)
    inner = optax.with_extra_args_support(inner)
    channel = exact(axis_name=axis_name)

    def init(params):
        inner_state = inner.init(params)
        feedback_in(inner_state, "average_residuals")
        return AverageResidualsState(jnp.zeros((), jnp.int32), inner_state)

    def update(updates, state, params=None, **extra_args):
        updates, inner_state = inner.update(updates, state.inner, params, **extra_args)
        residual = feedback_in(inner_state, "average_residuals").residual

        def average() -> Tree:
            return call(channel, residual, channel.init(residual))[0]

        # Not equality: an injected `period` may fall below the count.
        due = state.step + 1 >= period
        residual = jax.lax.cond(due, average, lambda: residual)
        step = jnp.where(due, 0, state.step + 1)
        new_inner_state = _with_residual(inner_state, residual)
        return updates, AverageResidualsState(step, new_inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _with_residual(state: Tree, residual: Tree) -> Tree:
    """A state with another residual in its error feedback."""

    def is_feedback(node: Tree) -> bool:
        return isinstance(node, ErrorFeedbackState)

    def replace(node: Tree) -> Tree:
        if is_feedback(node):
            return ErrorFeedbackState(residual, node.channel)
        return node

    return jax.tree.map(replace, state, is_leaf=is_feedback)
