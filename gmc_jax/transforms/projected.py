"""Steps that end in a set, or at a proximal point."""

from collections.abc import Callable

import jax
import optax

from gmc_jax.core import Tree
from gmc_jax.trees import widen


def projected(
    projection: Callable[[Tree], Tree],
) -> optax.GradientTransformationExtraArgs:
    """Shortens a step so that it ends where the projection says.

        out = projection(params + u) - params

    Args:
      projection: from parameters to parameters: one of `optax.projections`, or a
        proximal operator with its step size in it.

    Returns:
      A transformation in units of steps without state, the last in its chain.

    Raises:
      ValueError: from the update if it is called without parameters.

    Guarantees:
      Through the identity it changes nothing but rounding.
    """

    def init(params):
        del params
        return optax.EmptyState()

    def update(updates, state, params=None, **extra_args):
        del extra_args
        if params is None:
            raise ValueError(
                "`projected` projects parameters, so it must be given them: "
                "`tx.update(grads, opt_state, params)`."
            )
        start = widen(params)
        end = projection(optax.tree.add(start, widen(updates)))
        return jax.tree.map(lambda z, x: z - x, end, start), state

    return optax.GradientTransformationExtraArgs(init, update)
