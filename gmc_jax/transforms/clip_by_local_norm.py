"""Clipping on each worker by itself, before anything is averaged (DGC)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import optax

from gmc_jax import checks
from gmc_jax.channels.axis import workers_on
from gmc_jax.described import described
from gmc_jax.trees import to_accumulate


@described
def clip_by_local_norm(
    max_norm: float, *, axis_name: str = "workers"
) -> optax.GradientTransformationExtraArgs:
    """Scales each worker's gradient to a norm of at most max_norm / sqrt(K).

        g_k <- g_k * min(1, max_norm / (sqrt(K) * |g_k|))

    Here K is the number of workers and |g_k| the L2 norm of the whole tree. It stands
    in front of a method, in units of gradients: what is remembered (momentum, residual)
    then never holds an exploded gradient, and workers need not agree on a norm.

    The root is that of DGC, whose g_k add up to the gradient: sums of K independent
    g_k are sqrt(K) times as long. Where g_k are the gradients of each worker's own mean
    loss and channels average them, `max_norm` is thus K times what the mean is to keep
    to.

    Args:
      max_norm: the norm that the sum of all workers' gradients keeps to if these are
        independent, finite and greater than 0.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A transformation in units of gradients, without state. Nothing is sent.

    Raises:
      ValueError: if `max_norm` is not finite and greater than 0.
      NameError: from the update where no such axis is in scope.

    Example:
      DGC with gradients whose mean over 8 workers is to keep to a norm of 0.25:

      >>> import gmc_jax, optax
      >>> channel = gmc_jax.all_gather(gmc_jax.top_k(0.001), per_leaf=True)
      >>> tx = optax.chain(
      ...     gmc_jax.clip_by_local_norm(8 * 0.25), gmc_jax.dgc(0.1, channel)
      ... )

    Guarantees:
      No worker's norm exceeds max_norm / sqrt(K), to rounding; directions stay.
      A gradient that is short enough stays as it is, bit for bit.
      A NaN stays one, so that `skip_nonfinite` around it sees it.

    References:
      Lin et al., "Deep Gradient Compression", ICLR 2018, section 3.2 (local gradient
      clipping).
    """
    checks.magnitude(max_norm=max_norm)
    checks.axis(axis_name=axis_name)

    def init(params):
        checks.floating(params)
        return optax.EmptyState()

    def update(updates, state, params=None, **extra_args):
        del params, extra_args
        limit = max_norm / math.sqrt(workers_on(axis_name, "clip_by_local_norm"))
        wide = to_accumulate(updates)
        # Of numbers up to 1, since the squares of large ones are infinite.
        leaves = jax.tree.leaves(wide)
        largest = [jnp.max(jnp.abs(leaf), initial=0) for leaf in leaves]
        most = jnp.max(jnp.array(largest), initial=0)
        unit = jnp.where(most == 0, 1, most)
        norm = optax.tree.norm(jax.tree.map(lambda leaf: leaf / unit, wide))
        # Not the minimum with 1: it would hide that a norm is NaN.
        factor = jnp.where(norm * unit <= limit, 1, limit / unit / norm)
        clipped = jax.tree.map(
            lambda leaf, like: (leaf * factor).astype(like.dtype), wide, updates
        )
        return clipped, state

    return optax.GradientTransformationExtraArgs(init, update)
