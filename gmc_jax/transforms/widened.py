"""Running a transformation in the precision that trees are accumulated in."""

import optax

from gmc_jax.trees import widen


def widened(
    inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Gives a transformation float32 updates and state for 16-bit trees.

    optax keeps a buffer such as a trace in the dtype of the parameters unless told an
    `accumulator_dtype`, one for all leaves; this chooses it leaf by leaf.

    Args:
      inner: any transformation, in any units.

    Returns:
      The same, with 16-bit leaves widened to float32 on their way in. float32 and
      float64 leaves are as they were.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params):
        return inner.init(widen(params))

    def update(updates, state, params=None, **extra_args):
        return inner.update(widen(updates), state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(init, update)
