"""Global momentum: the last output feeds the next input."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmc_jax.core import Tree
from gmc_jax.transforms._learning_rate import over_rate, rate_at
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.trees import times, upcast, upcast_floating, zeros_to_accumulate


class GlobalMomentumState(NamedTuple):
    """The state of global momentum; the same on all workers, except `inner`.

    Attributes:
      step: int32, updates so far.
      rate: the last value of the learning rate, or 1 where there is none; 0 before the
        first update, when there is no momentum yet.
      momentum: the last output of the inner transformation.
      inner: the state of the inner transformation.
    """

    step: jax.Array
    rate: jax.Array
    momentum: Tree
    inner: Tree


@call_repr
def global_momentum(
    inner: optax.GradientTransformation,
    decay: float,
    learning_rate: optax.ScalarOrSchedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Feeds the last output of a transformation back into its input.

        out_t = inner(g_t + decay * ratio_t * out_{t-1})

    With a learning rate, `ratio_t = lr_{t-1} / lr_t`. Then out_{t-1} times its rate is
    the last step w_{t-1} - w_t: the paper's heavy ball under any schedule, without a
    subtraction of parameters. Where lr_t = 0 the ratio is 0, and the step is zero,
    whereas heavy ball as it is written would go on moving. Without a learning rate,
    `ratio = 1`, as in the buffer of `optax.trace`. The two agree at a constant rate.

    Args:
      inner: averages over workers, such as `error_feedback(channel)`; in units of
        gradients, or of steps without a learning rate.
      decay: the momentum, in [0, 1).
      learning_rate: the rate that scales the output later in the chain: a number, an
        optax schedule, or an array injected by `optax.inject_hyperparams`.

    Returns:
      A transformation in the units of `inner`, with `GlobalMomentumState`.

    Raises:
      TypeError: if `inner` is not a transformation.
      ValueError: if `decay` is not in [0, 1), or a rate is negative or not finite.

    Guarantees:
      Where `inner` returns the same on all workers, the momentum is the same on all
        workers, bit for bit.
    """
    checks.transformation(inner=inner)
    checks.decay(decay=decay)
    if learning_rate is not None:
        checks.learning_rate(learning_rate=learning_rate)
    inner = optax.with_extra_args_support(inner)

    def init(params):
        return GlobalMomentumState(
            step=jnp.zeros((), jnp.int32),
            rate=jnp.zeros((), jnp.result_type(float)),
            momentum=zeros_to_accumulate(params),
            inner=inner.init(params),
        )

    def update(updates, state, params=None, **extra_args):
        rate = rate_at(learning_rate, state.step)
        ratio = over_rate(state.rate, rate)
        updates = jax.tree.map(
            lambda g, out: g + times(decay * ratio, out),
            upcast_floating(updates),
            state.momentum,
        )
        out, inner_state = inner.update(updates, state.inner, params, **extra_args)
        step = jnp.asarray(optax.safe_increment(state.step))
        return out, GlobalMomentumState(step, rate, upcast(out), inner_state)

    return optax.GradientTransformationExtraArgs(init, update)
