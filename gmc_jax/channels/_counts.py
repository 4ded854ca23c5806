"""Counts of 64 bits, which JAX has no integers for unless they are enabled."""

import jax
import jax.numpy as jnp


def add_to_count(count: jax.Array, more: int | jax.Array) -> jax.Array:
    """Adds to a [2] uint32 count, carrying from the low half to the high one."""
    high, low = divmod(more, 2**32) if isinstance(more, int) else (0, more)
    total = count[1] + jnp.uint32(low)
    carry = (total < count[1]).astype(jnp.uint32)
    return jnp.stack([count[0] + jnp.uint32(high) + carry, total])
