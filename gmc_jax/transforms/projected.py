"""Steps that end in a set, or at a proximal point."""

from __future__ import annotations

from collections.abc import Callable

import optax

from gmc_jax.core import Tree
from gmc_jax.transforms._params import difference, require_params
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.trees import upcast, upcast_floating


@call_repr
def projected(
    projection: Callable[[Tree], Tree],
) -> optax.GradientTransformationExtraArgs:
    """Changes each step so that it ends at the projection of where it would end.

        out = projection(params + u) - params

    Args:
      projection: from parameters to parameters: one of `optax.projections`, or a
        proximal operator that includes its step size.

    Returns:
      A transformation in units of steps, the last in its chain. It has no state.

    Raises:
      TypeError: if `projection` is not a function.
      ValueError: from the update if it is called without parameters.

    Guarantees:
      With the identity as projection it changes updates by rounding only.
    """
    checks.function(projection=projection)

    def init(params):
        checks.floating(params)
        return optax.EmptyState()

    def update(updates, state, params=None, **extra_args):
        del extra_args
        start = upcast(require_params("projected", params))
        end = projection(optax.tree.add(start, upcast_floating(updates)))
        return difference(start, end), state

    return optax.GradientTransformationExtraArgs(init, update)
