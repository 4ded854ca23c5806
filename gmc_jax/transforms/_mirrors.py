"""Which leaves of a state mirror the parameters: momenta, for example."""

import jax
import optax

from gmc_jax.core import Tree


def mirrors(
    inner: optax.GradientTransformation, state: Tree, flags: Tree = None
) -> Tree:
    """A tree of bools: whether a leaf of a state of `inner` mirrors a parameter.

    Args:
      inner: the transformation.
      state: one of its states.
      flags: which parameters count, a bool for each; None for all.
    """
    return optax.tree.map_params(
        inner,
        lambda _, flag=True: flag,
        state,
        *([] if flags is None else [flags]),
        # A tree may stand where the state of no parameters has a leaf: see `streaming`.
        transform_non_params=lambda node: jax.tree.map(lambda _: False, node),
    )
