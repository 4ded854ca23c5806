"""Inner optimizers that refuse gradients which are not floating."""

import optax

from gmc_jax.utils import checks


def of_floating(
    inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """A transformation that names a leaf of its updates which is not floating.

    Some of optax make floats of integers, so that what follows would not see them.
    """
    inner = optax.with_extra_args_support(inner)

    def update(updates, state, params=None, **extra_args):
        checks.floating(updates)
        return inner.update(updates, state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(inner.init, update)
