"""Tests of detached error feedback behind any optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import (
    all_gather,
    averaged,
    def_sgd,
    detached_optimizer,
    exact,
    top_k,
)
from tests.support import harness, problems, references
from tests.support.virtual_iterates import SCHEDULE, problem, rate_at

TOP = all_gather(top_k(0.1))


def trained(tx) -> np.ndarray:
    return harness.run(tx, problem())[0]


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_over_adam_it_is_the_transcription(workers):
    """Without a large epsilon the steps would be ties."""
    everyone = problems.quadratics(workers, steps=50, d=20)
    adam = optax.adam(SCHEDULE, 0.8, 0.95, eps=0.5)
    channel = all_gather(top_k(0.2))
    tx = detached_optimizer(adam, channel, detach=0.4, decay=0.9)
    weights, states = harness.run(tx, everyone)
    expected, residuals = references.detached_adam(
        everyone,
        rate_at,
        references.largest(0.2),
        beta=0.8,
        beta2=0.95,
        epsilon=0.5,
        detach=0.4,
        fade=0.9,
    )
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(harness.residual(states), -residuals, rtol=0, atol=1e-9)
    assert np.abs(residuals).max() > 0.01


@pytest.mark.slow
def test_over_momentum_sgd_it_is_def():
    ours = trained(detached_optimizer(optax.sgd(SCHEDULE, 0.9), TOP))
    np.testing.assert_array_equal(ours, trained(def_sgd(SCHEDULE, TOP)))


@pytest.mark.slow
def test_without_loss_it_steps_by_the_mean_of_the_own_steps():
    adam = optax.adamw(SCHEDULE, eps=0.1)
    ours = trained(detached_optimizer(adam, exact(), detach=0.7, decay=0.5))
    theirs = trained(optax.chain(adam, averaged(exact())))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_the_virtual_iterate_moves_by_the_mean_of_the_own_steps():
    """Steps of a constant size say how far: signs times the rate."""

    def signs(updates, params=None):
        del params
        return jnp.sign(updates)

    inner = optax.chain(optax.stateless_with_tree_map(signs), optax.scale(-0.01))
    weights, states = harness.run(detached_optimizer(inner, TOP), problem())
    moved = np.diff(weights + harness.residual(states).mean(axis=1), axis=0)
    workers = harness.residual(states).shape[1]
    counts = moved / 0.01 * workers
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-6)
    assert np.abs(counts).max() > workers / 2


def test_moments_of_16_bits_are_float32():
    tx = detached_optimizer(optax.adam(0.1), TOP)
    state = jax.eval_shape(tx.init, {"w": jnp.zeros(20, "bfloat16")})
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(state)]
    floats = [dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)]
    assert len(floats) == 4  # Two moments, the residual and its factor.
    assert set(floats) == {np.dtype("float32")}


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"`detach` must be in \[0, 1\]"):
        detached_optimizer(optax.sgd(0.1), TOP, detach=1.5)
    with pytest.raises(ValueError, match=r"`decay` must be in \[0, 1\]"):
        detached_optimizer(optax.sgd(0.1), TOP, decay=-1.0)
    with pytest.raises(TypeError, match="`inner`"):
        detached_optimizer(None, TOP)  # type: ignore[arg-type]
