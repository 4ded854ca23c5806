"""Gradients that are taken along the residual, and not at the parameters."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmc_jax.core import Tree, with_hooks
from gmc_jax.transforms._learning_rate import rate_at
from gmc_jax.transforms.error_feedback import feedback_in, shift_by_residual
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.jaxprs import mark_updated


@with_hooks
class DetachedState(NamedTuple):
    """The state of a detached transformation.

    Attributes:
      step: int32, updates so far.
      scale: the factor of the residual in the point of the next gradient, with its
        sign.
      inner: the state of the inner transformation; it holds the residual.
    """

    step: jax.Array
    scale: jax.Array
    inner: Tree

    def query(self, params: Tree) -> Tree:
        """The point of the next gradient: params + scale * residual."""
        return shift_by_residual(
            params, feedback_in(self.inner, "detached"), self.scale
        )


@call_repr
def detached(
    inner: optax.GradientTransformation,
    detach: float,
    learning_rate: optax.ScalarOrSchedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Takes each worker's next gradient at its own point along its residual.

    With a learning rate the residual e_k is in units of gradients (GMC+), and the point
    is `params - detach * lr_t * e_k`. Without one it is in units of steps, signed as
    updates are (DEF), and the point is `params + detach * e_k`. The training loop
    computes the point with `gmc_jax.query(opt_state, params)`.

    Args:
      inner: an `error_feedback`, or a transformation that contains exactly one.
      detach: how far along the residual the gradient is taken: lambda in the papers, in
        [0, 1]. With 0 it is taken at the parameters, and with 1 where they would be if
        all of the residual were sent.
      learning_rate: the rate of the step that uses the gradient: a number or a
        schedule. Under `optax.inject_hyperparams` the next rate is not known in
        advance, and the last one is used.

    Returns:
      A transformation that passes updates through `inner`, with `DetachedState`.

    Raises:
      TypeError: if `inner` is not a transformation.
      ValueError: if `detach` is not in [0, 1], or a rate is negative or not finite;
        from `init` if `inner` does not contain exactly one `error_feedback`.

    Guarantees:
      With `detach=0` it is `inner`.

    References:
      Xu and Huang, "Detached Error Feedback for Distributed SGD with Random
      Sparsification", ICML 2022; Algorithm 2 of Shi et al., arXiv:1905.12948.
    """
    checks.transformation(inner=inner)
    checks.proportion(detach=detach)
    if learning_rate is not None:
        checks.learning_rate(learning_rate=learning_rate)
    inner = optax.with_extra_args_support(inner)

    def scale_at(step: jax.Array) -> jax.Array:
        sign = 1 if learning_rate is None else -1
        return sign * detach * rate_at(learning_rate, step)

    def init(params):
        inner_state = inner.init(params)
        feedback_in(inner_state, "detached")
        step = jnp.zeros((), jnp.int32)
        return DetachedState(step, scale_at(step), inner_state)

    def update(updates, state, params=None, **extra_args):
        updates, inner_state = inner.update(updates, state.inner, params, **extra_args)
        step = jnp.asarray(optax.safe_increment(state.step))
        return updates, mark_updated(DetachedState(step, scale_at(step), inner_state))

    return optax.GradientTransformationExtraArgs(init, update)
