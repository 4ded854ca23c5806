"""Tests of the channel that adds messages without decoding them."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax import all_gather, all_reduce, random_block, random_k, sampled_top_k, top_k
from tests.support.problems import average


@pytest.mark.parametrize("compressor", [top_k(0.1), sampled_top_k(0.1)])
def test_a_compressor_that_is_not_shared_is_refused(compressor):
    message = (
        "^`compressor` of `all_reduce` must be shared, got one .* `top_k`. "
        "`all_reduce` adds messages without decoding them. Use `all_gather`, or a "
        "shared compressor such as `random_block`.$"
    )
    with pytest.raises(ValueError, match=message):
        all_reduce(compressor)


@pytest.mark.parametrize("compressor", [random_k(0.2), random_block(0.2)])
@pytest.mark.parametrize("per_leaf", [False, True])
def test_it_does_what_all_gather_does(compressor, per_leaf):
    draw = np.random.default_rng(0)
    trees = {"a": draw.normal(size=(4, 3, 5)), "b": draw.normal(size=(4, 7))}
    trees = jax.tree.map(np.float32, trees)

    reduced = average(all_reduce(compressor, per_leaf=per_leaf, seed=2), trees)
    gathered = average(all_gather(compressor, per_leaf=per_leaf, seed=2), trees)

    chex.assert_trees_all_close(reduced, gathered, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "width"), [("float32", 32), ("bfloat16", 32), ("float16", 32)]
)
def test_messages_count_in_the_dtype_that_is_summed(dtype, width):
    tree = {"a": jnp.zeros((8, 10), dtype), "b": jnp.zeros(20, dtype)}
    assert all_reduce(random_block(0.05)).bits(tree) == 5 * width
    assert all_reduce(random_block(0.05), per_leaf=True).bits(tree) == (4 + 1) * width
    assert all_reduce(random_k(0.05)).entries(tree) == 5


def test_sixteen_bits_are_summed_in_float32():
    """In bfloat16, 256 + 1 is 256."""
    trees = jnp.array([[256.0], [1.0], [1.0], [1.0]], jnp.bfloat16)
    channel = all_reduce(random_block(1.0))
    mean, _, _ = average(channel, trees)
    np.testing.assert_array_equal(mean, np.full((4, 1), 259 / 4, np.float32))


def test_double_precision_travels_as_such(float64):
    tree = {"a": jnp.zeros((8, 10), "float64")}
    assert all_reduce(random_block(0.05)).bits(tree) == 4 * 64
