"""Adam whose variance is frozen at a step, and whose momentum is averaged from then."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmc_jax.core import Tree, with_hooks
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.trees import times, upcast, upcast_floating, zeros_to_accumulate


@with_hooks
class FreezingAdamState(NamedTuple):
    """The state of Adam that is frozen; the same on all workers, except `inner`.

    Attributes:
      step: int32, updates so far.
      momentum: m, float32 for 16-bit trees.
      variance: v, which does not change from `freeze_step` on.
      inner: the state of the inner transformation.
    """

    step: jax.Array
    momentum: Tree
    variance: Tree
    inner: Tree

    def conserved(self) -> Tree:
        """The variance, which could not be estimated again once it is frozen."""
        return self.variance


@call_repr
def freezing_adam(
    inner: optax.GradientTransformation,
    freeze_step: int,
    *,
    momentum: float = 0.9,
    variance_decay: float = 0.999,
    epsilon: float = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """Scales by Adam, at first with averaged gradients, later with averaged momenta.

        where t < freeze_step:
          g = inner(g_k)
          m <- momentum * m + (1 - momentum) g
          v <- variance_decay * v + (1 - variance_decay) g^2
        from then on:
          m <- inner(momentum * m + (1 - momentum) g_k)
        out = m / (sqrt(v) + epsilon)

    The variance is no linear function of gradients, so it needs their exact mean. The
    momentum is linear in them, so its mean may be compressed with error feedback.

    Args:
      inner: averages over workers, such as `averaged(channel)`. It gets gradients in
        its first `freeze_step` updates and momenta later; `join_channels` changes the
        channel at the same update.
      freeze_step: the number of updates before v is frozen, at least 1.
      momentum: the decay of m, in [0, 1); beta_1 of Adam.
      variance_decay: the decay of v, in [0, 1); beta_2 of Adam.
      epsilon: positive.

    Returns:
      A transformation from gradients to steps before the learning rate, with
      `FreezingAdamState`. Adam's bias is not corrected, as in DeepSpeed's code.

    Raises:
      TypeError: if `inner` is not a transformation.
      ValueError: if `freeze_step` is not a whole number of at least 1, `momentum` or
        `variance_decay` is not in [0, 1), or `epsilon` is not positive and finite.

    Guarantees:
      Before `freeze_step` it is Adam of what `inner` returns, without the correction of
        bias: the momentum of the first steps is 1 - momentum^t too small.
      From `freeze_step` on v keeps its bits.
    """
    checks.transformation(inner=inner)
    checks.steps(freeze_step=freeze_step)
    checks.decay(momentum=momentum, variance_decay=variance_decay)
    checks.positive(epsilon=epsilon)
    inner = optax.with_extra_args_support(inner)

    def init(params):
        return FreezingAdamState(
            step=jnp.zeros((), jnp.int32),
            momentum=zeros_to_accumulate(params),
            variance=zeros_to_accumulate(params),
            inner=inner.init(params),
        )

    def ema(decay: float, average: jax.Array, new: jax.Array) -> jax.Array:
        return times(decay, average) + times(1 - decay, new)

    def update(updates, state, params=None, **extra_args):
        is_frozen = state.step >= freeze_step

        def send(g: jax.Array, m: jax.Array) -> jax.Array:
            return jnp.where(is_frozen, ema(momentum, m, g), g)

        sent = jax.tree.map(send, upcast_floating(updates), state.momentum)
        mean, inner_state = inner.update(sent, state.inner, params, **extra_args)

        def move(m: jax.Array, mean: jax.Array) -> jax.Array:
            return jnp.where(is_frozen, mean, ema(momentum, m, mean))

        def spread(v: jax.Array, mean: jax.Array) -> jax.Array:
            return jnp.where(is_frozen, v, ema(variance_decay, v, mean**2))

        def scaled(m: jax.Array, v: jax.Array) -> jax.Array:
            return m / (jnp.sqrt(v) + jnp.asarray(epsilon, v.dtype))

        mean = upcast(mean)
        m = jax.tree.map(move, state.momentum, mean)
        v = jax.tree.map(spread, state.variance, mean)
        step = jnp.asarray(optax.safe_increment(state.step))
        out = jax.tree.map(scaled, m, v)
        return out, FreezingAdamState(step, m, v, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)
