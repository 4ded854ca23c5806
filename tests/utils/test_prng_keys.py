"""Tests of random keys among the leaves of a tree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax.utils.prng_keys import is_key, is_raw_key, without_key_types

TYPED, RAW = jax.random.key(0), jax.random.PRNGKey(0)


@pytest.mark.parametrize(
    ("leaf", "typed", "raw"),
    [
        (TYPED, True, False),
        (jax.random.split(TYPED, 3), True, False),
        (RAW, False, True),
        (jax.random.split(RAW, 3), False, True),
        (jnp.ones(3, "uint32"), False, False),
        (jnp.ones((), "uint32"), False, False),
        (jnp.ones(2, "int32"), False, False),
        (jnp.ones(2), False, False),
    ],
)
def test_keys_are_found_by_dtype_and_shape(leaf, typed, raw):
    for one in (leaf, jax.eval_shape(lambda: leaf)):
        assert is_key(one) == typed
        assert is_raw_key(one) == raw


def test_typed_keys_become_their_data_and_other_leaves_stay():
    np.testing.assert_array_equal(without_key_types(TYPED), jax.random.key_data(TYPED))
    for leaf in (RAW, jnp.ones(2)):
        assert without_key_types(leaf) is leaf
