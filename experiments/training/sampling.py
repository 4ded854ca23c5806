"""Text that a trained network writes."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.images import Data
from gmc_jax.core import Tree


def sampler(model: nn.Module, data: Data) -> Callable[[Tree, int], str] | None:
    """Makes a function that writes text, one token after another.

    Returns:
      A function from parameters and a number of tokens to text that follows the start
      of the test text; None for images.
    """
    if (decode := data.decode) is None:
        return None

    @functools.partial(jax.jit, static_argnums=1)
    def write(params, count, first, key):
        def next_one(window, key):
            logits = model.apply({"params": params}, window, train=False)
            new = jax.random.categorical(key, jnp.asarray(logits)[:, -1])
            return jnp.append(window[:, 1:], new[:, None], axis=1), new[0]

        return jax.lax.scan(next_one, first, jax.random.split(key, count))[1]

    def sample(params, count):
        first = jnp.asarray(data.prepare(jnp.asarray(data.test.images[:1])))
        return decode(np.asarray(write(params, count, first, jax.random.key(0))))

    return sample
