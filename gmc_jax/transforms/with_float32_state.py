"""Running a transformation in the precision that trees are accumulated in."""

from __future__ import annotations

import optax

from gmc_jax.utils import checks
from gmc_jax.utils.described import described
from gmc_jax.utils.trees import downcast, upcast, upcast_floating


@described
def with_float32_state(
    inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Gives a transformation float32 updates and state for 16-bit trees.

    optax keeps a buffer such as a trace in the dtype of the parameters unless told an
    `accumulator_dtype`, one for all leaves; this chooses it leaf by leaf. Behind
    `error_feedback`, whose updates are float32 where the parameters have 16 bits, an
    optimizer of optax needs it:

        chain(error_feedback(channel), with_float32_state(optax.adam(1e-3)))

    Args:
      inner: any transformation, in any units.

    Returns:
      The same, with 16-bit leaves upcast to float32 on their way in.

    Raises:
      TypeError: if `inner` is no transformation; from `init` and the update where a
        leaf is not floating.

    Example:
      >>> import gmc_jax, optax
      >>> channel = gmc_jax.all_gather(gmc_jax.top_k(0.01))
      >>> tx = optax.chain(
      ...     gmc_jax.error_feedback(channel),
      ...     gmc_jax.with_float32_state(optax.adam(1e-3)),
      ... )

    Guarantees:
      Of float32 and float64 trees it is `inner`.
      Of 16-bit trees updates and state are float32.
      Updates and state keep their dtypes, whatever scales them.
    """
    checks.transformation(inner=inner)
    inner = optax.with_extra_args_support(inner)

    def init(params):
        checks.floating(params)
        return inner.init(upcast(params))

    def update(updates, state, params=None, **extra_args):
        wide = upcast_floating(updates)
        out, after = inner.update(wide, state, params, **extra_args)
        # Not wider than that: a rate, injected or of a schedule, may be float64.
        return downcast(out, wide), downcast(after, state)

    return optax.GradientTransformationExtraArgs(init, update)
