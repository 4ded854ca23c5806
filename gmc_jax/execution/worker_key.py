"""A random key for each worker."""

from __future__ import annotations

import jax

from gmc_jax.channels._axis import workers_on
from gmc_jax.utils import checks


def worker_key(key: jax.Array, *, axis_name: str = "workers") -> jax.Array:
    """Derives a worker's own random key from one that all workers share.

    Call it inside the step. Without it, a key in the replicated state gives all workers
    the same draws, such as the same dropout.

    Args:
      key: a typed or raw key, the same on all workers.
      axis_name: the named axis whose indices are the workers.

    Returns:
      The key with the worker's index folded in.

    Raises:
      NameError: if no such axis is in scope.
    """
    checks.axis(axis_name=axis_name)
    workers_on(axis_name, "worker_key")
    return jax.random.fold_in(key, jax.lax.axis_index(axis_name))
