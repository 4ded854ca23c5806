"""Averages of values that are rounded before they are sent."""

import jax
import jax.numpy as jnp

from gmc_jax.channels._calls import call
from gmc_jax.core import Channel, Tree
from gmc_jax.utils import checks
from gmc_jax.utils.trees import downcast


def average_in_dtype(
    channel: Channel, tree: Tree, state: Tree, like: Tree
) -> tuple[Tree, Tree, Tree]:
    """Rounds a tree to the dtypes of `like` and averages it.

    `lost` includes what the rounding loses.
    """
    checks.floating(tree)
    checks.floating(like)
    sent = downcast(tree, like)
    mean, lost, state = call(channel, sent, state)
    return mean, jax.tree.map(_add_rounding, lost, tree, sent), state


def _add_rounding(lost: jax.Array, exact: jax.Array, sent: jax.Array) -> jax.Array:
    dtype = jnp.result_type(exact)
    if jnp.result_type(sent) == dtype:
        return lost
    return lost + (exact - jnp.asarray(sent, dtype))
