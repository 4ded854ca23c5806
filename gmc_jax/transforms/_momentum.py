"""The momentum that a worker applies by itself, if there is any."""

import jax
import numpy as np
import optax

from gmc_jax.transforms.with_float32_state import with_float32_state


def absent(momentum: float | None) -> bool:
    """Whether there is no momentum, and never will be: None, or a Python number 0.

    An array may be injected by `optax.inject_hyperparams`, which makes it concrete in
    `init` and traces it in `update`. The structure of a state must not depend on its
    value, so an array is a momentum even where it is 0.
    """
    if isinstance(momentum, np.ndarray | jax.Array):
        return False
    return momentum is None or momentum == 0


def or_zero(momentum: float | None) -> float:
    """The momentum as a number; None is 0."""
    return 0.0 if momentum is None else momentum


def remembered(
    momentum: float | None, nesterov: bool = False
) -> optax.GradientTransformation:
    """`optax.trace`, float32 for 16-bit trees; without a momentum it keeps nothing."""
    if absent(momentum):
        return with_float32_state(optax.identity())
    return with_float32_state(optax.trace(or_zero(momentum), nesterov=nesterov))
