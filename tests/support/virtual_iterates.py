"""Problem, channels and terms of the exact identities of methods."""

import functools
import math

import jax.numpy as jnp
import numpy as np
import optax

from gmc_jax import Compressor, all_gather, random_block, top_k
from tests.support import problems

RATE, MOMENTUM, STEPS = 0.02, 0.9, 50
SCHEDULE = optax.cosine_decay_schedule(RATE, STEPS)


def unruly() -> Compressor:
    """Sends a shifted vector, twice as large: it is no contraction."""

    def encode(key, x):
        del key
        message = 2 * jnp.roll(jnp.where(jnp.arange(x.size) % 3, x, 0), 1)
        return message, x - message

    def decode(key, messages, like):
        del key, like
        return messages.sum(axis=0)

    return Compressor(encode, decode)


CHANNELS = {
    "top_k": all_gather(top_k(0.1)),
    "random_block": all_gather(random_block(0.15)),
    "unruly": all_gather(unruly()),
}


@functools.cache
def problem() -> problems.Problem:
    """Four workers that disagree."""
    return problems.quadratics(workers=4, steps=STEPS)


def rate_at(step: int) -> float:
    """The cosine schedule without JAX."""
    return RATE / 2 * (1 + math.cos(math.pi * step / STEPS))


def warm_up(step):
    """A schedule from 0 up in ten steps, and down as the cosine."""
    return SCHEDULE(step) * jnp.minimum((step + 0.0) / 10, 1)


def warm_up_at(step: int) -> float:
    """The warm-up without JAX."""
    return rate_at(step) * min(step / 10, 1)


RATES = np.array([[rate_at(step)] for step in range(STEPS)])


def mean_gradients(weights: np.ndarray) -> np.ndarray:
    """The mean gradient at each of the weights but the last, [steps, d]."""
    steps = range(problem().steps)
    return np.stack([problem().mean_gradient(t, weights[t]) for t in steps])


def buffered(gradients: np.ndarray) -> np.ndarray:
    """The momentum buffers of gradients, [steps, d]."""
    buffers = [np.zeros_like(gradients[0])]
    for gradient in gradients:
        buffers.append(MOMENTUM * buffers[-1] + gradient)
    return np.stack(buffers[1:])


def telescoped(weights: np.ndarray, residual: np.ndarray | float) -> np.ndarray:
    """w_t - momentum * w_{t-1} - residual_t, with w_{-1} = w_0."""
    last = np.concatenate([weights[:1], weights[:-1]])
    return weights - MOMENTUM * last - residual


def assert_moves_by(points: np.ndarray, steps: np.ndarray) -> None:
    """Each of the points is the one before and a step, to rounding."""
    size = np.abs(points).max()
    np.testing.assert_allclose(
        np.diff(points, axis=0), steps, rtol=0, atol=1e-11 * size
    )
