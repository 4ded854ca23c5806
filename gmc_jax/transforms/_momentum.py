"""An optional momentum as methods take it: a number, an array, or None."""

import jax
import numpy as np
import optax

from gmc_jax.transforms.with_float32_state import with_float32_state


def has_no_momentum(momentum: float | None) -> bool:
    """Whether there is no momentum at any step: None, or a Python number 0.

    An array may come from `optax.inject_hyperparams`, which makes it concrete in `init`
    and traced in `update`. The structure of a state must not depend on its value, so an
    array counts as a momentum even where it is 0.
    """
    if isinstance(momentum, np.ndarray | jax.Array):
        return False
    return momentum is None or momentum == 0


def momentum_value(momentum: float | None) -> float:
    """The momentum as a number; None is 0."""
    return 0.0 if momentum is None else momentum


def momentum_trace(
    momentum: float | None, nesterov: bool = False
) -> optax.GradientTransformation:
    """`optax.trace`, in float32 for 16-bit trees; without momentum, no buffer."""
    if has_no_momentum(momentum):
        return with_float32_state(optax.identity())
    return with_float32_state(optax.trace(momentum_value(momentum), nesterov=nesterov))
