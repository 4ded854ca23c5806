"""The keys of a call; `all_gather` has the rule."""

import jax
import jax.numpy as jnp

from gmc_jax.core import Compressor


def keys_of_call(seed: int, step: jax.Array, per_leaf: bool, leaves: int) -> jax.Array:
    """The keys of a call, by the index of the leaf; `all_gather` has the rule."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    if not per_leaf:
        return key[None]
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(leaves))


def key_of_worker(compressor: Compressor, key: jax.Array, axis_name: str) -> jax.Array:
    """The key that a worker draws with: a shared compressor has the same on all."""
    if compressor.shared:
        return key
    return jax.random.fold_in(key, jax.lax.axis_index(axis_name))
