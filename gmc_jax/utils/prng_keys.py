"""Recognises random keys among the leaves of a tree."""

import jax
import jax.numpy as jnp


def is_key(leaf: jax.Array | jax.ShapeDtypeStruct) -> bool:
    """Whether a leaf holds typed random keys."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def is_raw_key(leaf: jax.Array | jax.ShapeDtypeStruct) -> bool:
    """Whether a leaf looks like raw random keys: uint32 of a key's shape."""
    if leaf.dtype != jnp.uint32:
        return False
    raw = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
    return leaf.shape[-1:] == raw.shape


def without_key_types(leaf: jax.Array) -> jax.Array:
    """Returns the data of typed random keys, and any other leaf unchanged."""
    if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
        return jax.random.key_data(leaf)
    return leaf
