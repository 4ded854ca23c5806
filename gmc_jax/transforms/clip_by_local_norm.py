"""Clips each worker's own gradient, before anything is averaged (DGC)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import optax
from jax import lax

from gmc_jax.channels._axis import workers_on
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.trees import upcast_floating


@call_repr
def clip_by_local_norm(
    max_norm: float, *, axis_name: str = "workers"
) -> optax.GradientTransformationExtraArgs:
    """Scales each worker's gradient to a norm of at most max_norm / sqrt(K).

        g_k <- g_k * min(1, max_norm / (sqrt(K) * |g_k|))

    K is the number of workers, and |g_k| the L2 norm of the whole tree. It stands in
    front of a method, in units of gradients. Momentum and residual then never hold an
    exploded gradient, and workers need not agree on a norm.

    The root is that of DGC, where the sum of all g_k is the gradient: the sum of K
    independent g_k is sqrt(K) times as long as one. Here g_k are usually the gradients
    of each worker's own mean loss, and channels average them. Then `max_norm` must be K
    times the bound for the norm of the mean.

    Args:
      max_norm: the bound for the norm of the sum of all workers' gradients, if these
        are independent; finite and greater than 0.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A transformation in units of gradients, without state. It sends nothing.

    Raises:
      TypeError: from `init` and the update where a leaf is not floating.
      ValueError: if `max_norm` is not finite and greater than 0.
      NameError: from the update where no such axis is in scope.

    Example:
      DGC with a bound of 0.25 for the norm of the mean over 8 workers:

      >>> import gmc_jax, optax
      >>> channel = gmc_jax.all_gather(gmc_jax.top_k(0.001), per_leaf=True)
      >>> tx = optax.chain(
      ...     gmc_jax.clip_by_local_norm(8 * 0.25), gmc_jax.dgc(0.1, channel)
      ... )

    Guarantees:
      No worker's norm exceeds max_norm / sqrt(K), to rounding; directions stay. This
        holds for all finite gradients, up to the largest numbers of their dtype.
      A gradient whose norm is at most max_norm / sqrt(K) does not change, bit for bit.
      A NaN stays NaN, so a `skip_nonfinite` around the chain detects it.

    References:
      Lin et al., "Deep Gradient Compression", ICLR 2018, section 3.2 (local gradient
      clipping).
    """
    checks.positive(max_norm=max_norm)
    checks.axis(axis_name=axis_name)

    def init(params):
        checks.floating(params)
        return optax.EmptyState()

    def update(updates, state, params=None, **extra_args):
        del params, extra_args
        limit = max_norm / math.sqrt(workers_on(axis_name, "clip_by_local_norm"))
        wide = upcast_floating(updates)
        leaves = jax.tree.leaves(wide)
        if not leaves:
            return updates, state
        widest = max((leaf.dtype for leaf in leaves), key=lambda dtype: dtype.itemsize)
        sizes = [jnp.max(jnp.abs(leaf), initial=0).astype(widest) for leaf in leaves]
        unit = _power_of_two(jnp.max(jnp.stack(sizes)))
        # The norm of numbers scaled to at most 4: squares of large ones are infinite.
        inverse = 1 / unit
        norm = optax.tree.norm([leaf.astype(widest) * inverse for leaf in leaves])
        # Not `norm > limit`: a gradient whose norm is NaN must not count as short.
        short = norm * unit <= limit
        # One factor, or two where their product is too small to be a normal number.
        # (XLA would merge two divisions into one by a product that may be infinite.)
        factor = limit / norm * inverse
        normal = factor >= jnp.finfo(widest).tiny
        first = jnp.where(normal, 1, inverse)
        second = jnp.where(normal, factor, limit / norm)

        def clip(leaf: jax.Array, like: jax.Array) -> jax.Array:
            clipped = leaf.astype(widest) * first * second
            return jnp.where(short, like, clipped.astype(jnp.result_type(like)))

        return jax.tree.map(clip, wide, updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def _power_of_two(number: jax.Array) -> jax.Array:
    """The largest power of two up to a number >= 0 whose inverse is a normal number.

    Dividing by it changes no digit, and all backends compute it alike.
    """
    limits = jnp.finfo(number.dtype)
    integers = jnp.dtype(f"int{limits.bits}")
    exponent = (
        lax.bitcast_convert_type(number, integers) >> limits.nmant << limits.nmant
    )
    power = lax.bitcast_convert_type(exponent, number.dtype)
    return jnp.clip(power, limits.tiny, 1 / limits.tiny)
