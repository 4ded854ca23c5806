"""Runs a transformation with float32 updates and state for 16-bit trees."""

from __future__ import annotations

import optax

from gmc_jax.transforms._float32_init import init_in_float32
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.trees import downcast, upcast_floating


@call_repr
def with_float32_state(
    inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Gives a transformation float32 updates and state for 16-bit trees.

    optax keeps a buffer such as a trace in the dtype of the parameters, unless it is
    given an `accumulator_dtype` for all leaves. This transformation chooses the dtype
    leaf by leaf. The updates of `error_feedback` are float32 where the parameters have
    16 bits, so an optimizer of optax behind it needs `with_float32_state`:

        chain(error_feedback(channel), with_float32_state(optax.adam(1e-3)))

    Args:
      inner: any transformation, in any units.

    Returns:
      The same transformation; 16-bit updates are upcast to float32 before `inner`.

    Raises:
      TypeError: if `inner` is not a transformation; from `init` and the update where a
        leaf is not floating.

    Example:
      >>> import gmc_jax, optax
      >>> channel = gmc_jax.all_gather(gmc_jax.top_k(0.01))
      >>> tx = optax.chain(
      ...     gmc_jax.error_feedback(channel),
      ...     gmc_jax.with_float32_state(optax.adam(1e-3)),
      ... )

    Guarantees:
      For float32 and float64 trees it is `inner`.
      Updates and state of 16-bit trees are float32. A channel inside `inner` still
        averages in the dtypes of the parameters.
      Updates and state keep these dtypes, whatever the dtype of a learning rate.
    """
    checks.transformation(inner=inner)
    inner = optax.with_extra_args_support(inner)

    def init(params):
        checks.floating(params)
        return init_in_float32(inner, params)

    def update(updates, state, params=None, **extra_args):
        wide = upcast_floating(updates)
        out, new_state = inner.update(wide, state, params, **extra_args)
        # A rate, injected or of a schedule, may be float64 and widen both.
        return downcast(out, wide), downcast(new_state, state)

    return optax.GradientTransformationExtraArgs(init, update)
