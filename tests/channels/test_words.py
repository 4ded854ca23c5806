"""Tests of trees as vectors of words."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax.channels._words import from_words, to_words


@pytest.mark.slow
def test_words_hold_every_bit():
    tree = {
        "empty": np.zeros((0, 2), np.float32),
        "flags": np.array([True, False, True]),
        "halves": np.array([[1, -0.0, np.inf]], jnp.bfloat16),
        "narrow": np.arange(5, dtype=np.uint8),
        "float8": np.array([0.5, -2], jnp.float8_e4m3fn),
        "wide": np.array([[1e-300], [np.pi]]),
        "scale": np.float32(3),
        "signs": np.array([2**32 - 1, 7], np.uint32),
    }
    with jax.enable_x64(True):
        like = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, tree))
        words = to_words(tree)
        again = from_words(words, like)
        assert from_words(to_words({}), {}) == {}
    assert words.dtype == jnp.uint32
    chex.assert_trees_all_equal_shapes_and_dtypes(again, like)
    for leaf, other in zip(jax.tree.leaves(tree), jax.tree.leaves(again), strict=True):
        assert leaf.tobytes() == np.asarray(other).tobytes()
