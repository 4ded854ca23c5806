"""What tests of quantisers share: coding one vector, and means over many keys."""

import jax
import jax.numpy as jnp
import numpy as np

from gmc_jax import Compressor
from tests.support.compressors import round_trip


def coded(compressor: Compressor, x: np.ndarray, seed: int = 0):
    """The message of a vector, what is lost, and what the message is decoded to."""
    code = round_trip(compressor)
    return jax.tree.map(np.asarray, code(jax.random.key(seed), jnp.asarray(x)))


def draws(compressor: Compressor, x: np.ndarray, keys: int) -> np.ndarray:
    """What messages of a vector are decoded to, with as many keys, [keys, d]."""
    every = jax.random.split(jax.random.key(0), keys)
    code = round_trip(compressor)
    decoded = jax.jit(jax.vmap(lambda key, x: code(key, x)[2], (0, None)))
    return np.asarray(decoded(every, jnp.asarray(x)))


def blocks_of(x: np.ndarray, bucket: int) -> list[np.ndarray]:
    """The buckets of a vector."""
    return [x[start : start + bucket] for start in range(0, x.size, bucket)]


def assert_mean_is(expected: np.ndarray, drawn: np.ndarray) -> None:
    """The mean of each entry over draws is within 4 standard errors of its own."""
    error = drawn.std(axis=0, ddof=1) / np.sqrt(len(drawn))
    assert np.all(np.abs(drawn.mean(axis=0) - expected) <= 4 * error + 1e-12)
    assert np.any(error > 0)


def vector(d: int, seed: int = 0) -> np.ndarray:
    """Normal numbers of several magnitudes, in float64."""
    draw = np.random.default_rng(seed)
    return draw.normal(size=d) * 2.0 ** draw.integers(-3, 3, size=d)
