"""What the guards against NaN and Inf share: votes, and updates that may be skipped."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from gmc_jax.channels._calls import call
from gmc_jax.core import Channel, Tree


def has_nonfinite(tree: Tree) -> jax.Array:
    """Whether any entry of a tree is NaN or infinite; integers never are."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if is_inexact(leaf)]
    found = [jnp.any(~jnp.isfinite(leaf)) for leaf in leaves]
    return jnp.any(jnp.array(found, bool))


def share_of_workers(flag: jax.Array, vote: Channel) -> jax.Array:
    """The share of workers whose flag is set, in [0, 1]; the same on all workers."""
    share, _, _ = call(vote, flag.astype(jnp.result_type(float)), ())
    return share


def update_or_skip(
    update: Callable[[], tuple[Tree, Tree]],
    inner_state: Tree,
    skips: jax.Array,
    vote: Channel,
) -> tuple[Tree, Tree, jax.Array]:
    """Updates, or skips the step on all workers.

    All workers also skip it if `update` makes the updates of any of them not finite.

    Args:
      update: `() -> (updates, inner_state)`, the step of the inner transformation.
      inner_state: the state that a skipped step keeps.
      skips: whether to skip the step; the same on all workers.
      vote: averages the flags of workers.

    Returns:
      The updates, which are zero where the step is skipped; the new inner state; and
      whether the step was skipped.
    """

    def take() -> tuple[Tree, Tree, jax.Array]:
        out, new_state = update()
        overflows = share_of_workers(has_nonfinite(out), vote) > 0
        taken = out, new_state
        skipped = optax.tree.zeros_like(out), inner_state
        return *jax.lax.cond(overflows, lambda: skipped, lambda: taken), overflows

    def skip() -> tuple[Tree, Tree, jax.Array]:
        out, _, _ = jax.eval_shape(take)
        return optax.tree.zeros_like(out), inner_state, jnp.array(True)

    return jax.lax.cond(skips, skip, take)


def is_inexact(leaf: jax.typing.ArrayLike) -> bool:
    """Whether a leaf has a dtype that can be NaN or infinite."""
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.inexact))
