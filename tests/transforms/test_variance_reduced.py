"""Tests of variance reduction alone; SVRG is in methods."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gmc_jax
from gmc_jax import no_communication, set_full_gradient, svrg_snapshot, variance_reduced


def test_at_the_snapshot_it_is_the_full_gradient():
    tx = variance_reduced(no_communication())
    params, noise = jnp.ones(3), jnp.array([5.0, -7.0, 2.0])
    state = set_full_gradient(tx.init(params), params, jnp.arange(3.0))
    out, state = tx.update(noise, state, params, snapshot_grads=noise)
    np.testing.assert_array_equal(out, [0, 1, 2])
    out, _ = tx.update(noise + 1, state, params, snapshot_grads=noise)
    np.testing.assert_array_equal(out, [1, 2, 3])


def test_its_state_is_float32_for_16_bits_and_a_copy():
    tx = variance_reduced(no_communication())
    params = jnp.ones(3, jnp.bfloat16)
    gradient = jnp.ones(3)
    state = set_full_gradient(tx.init(params), params, gradient)
    assert svrg_snapshot(state).dtype == jnp.bfloat16
    assert state.full_gradient.dtype == jnp.float32
    params.delete()
    gradient.delete()
    np.testing.assert_array_equal(svrg_snapshot(state), 1)
    np.testing.assert_array_equal(state.full_gradient, 1)


def test_a_compressor_is_no_channel():
    with pytest.raises(TypeError, match="`channel` must be a channel"):
        variance_reduced(cast(Any, gmc_jax.top_k(0.1)))


def test_a_loop_that_forgets_the_full_gradient_gets_nans():
    tx = variance_reduced(no_communication())
    params = jnp.ones(3)
    out, _ = tx.update(params, tx.init(params), params, snapshot_grads=params)
    assert np.isnan(np.asarray(out)).all()


def test_init_works_under_debug_nans():
    """`init` makes NaNs on purpose, which `set_full_gradient` replaces."""
    w = jnp.ones(3)
    with jax.debug_nans(True):
        state = variance_reduced(no_communication()).init(w)
        state = set_full_gradient(state, w, 2 * w)
    np.testing.assert_array_equal(state.full_gradient, 2 * w)


@pytest.mark.parametrize(
    ("params", "gradient", "wrong"),
    [
        (
            jnp.ones(3),
            jnp.ones((2, 3)),
            r"`gradient` must be float32\[3\], got float",
        ),
        (jnp.ones(3), None, r"`gradient` must be float32\[3\], got None"),
        (jnp.ones(3), [jnp.ones(3)], r"`gradient` must be .* got a list of 1"),
        (
            jnp.ones(4),
            jnp.ones(4),
            r"`params` must be float32\[3\], got float32\[4\]",
        ),
        (jnp.ones(3), jnp.ones(3, int), "got dtype int32"),
    ],
)
def test_a_full_gradient_has_the_form_of_the_parameters(params, gradient, wrong):
    """Anything else would be broadcast at the update."""
    state = variance_reduced(no_communication()).init(jnp.ones(3))
    with pytest.raises((TypeError, ValueError), match=wrong):
        set_full_gradient(state, params, gradient)
