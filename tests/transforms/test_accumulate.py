"""Tests of accumulating gradients and communicating when they are complete."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import accumulate, all_gather, averaged, exact, gmc, top_k
from tests.support import harness

PERIOD, BIG_STEPS, WORKERS, D = 3, 5, 4, 20
GRADIENTS = np.random.default_rng(0).normal(size=(BIG_STEPS * PERIOD, WORKERS, D))
BIG = GRADIENTS.reshape(BIG_STEPS, PERIOD, WORKERS, D).mean(axis=1)
SCHEDULE = optax.cosine_decay_schedule(0.1, BIG_STEPS)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_it_equals_batches_that_are_larger(dtype):
    """Schedule, residual and random draws count the large batches."""
    with jax.enable_x64(dtype == "float64"):
        tx = gmc(SCHEDULE, all_gather(top_k(0.2)))
        params = np.zeros(D, dtype)
        ours, states = harness.updates(
            accumulate(tx, PERIOD), params, GRADIENTS.astype(dtype)
        )
        theirs, big_states = harness.updates(tx, params, BIG.astype(dtype))
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    complete = ours[PERIOD - 1 :: PERIOD]
    np.testing.assert_allclose(complete, theirs, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(
        harness.residual([states.inner])[::PERIOD],
        harness.residual(big_states),
        rtol=tolerance,
        atol=tolerance,
    )


def test_parameters_do_not_move_in_between():
    tx = accumulate(averaged(exact()), PERIOD)
    moved, states = harness.updates(tx, np.zeros(D, np.float32), np.float32(GRADIENTS))
    moves = np.any(moved, axis=(1, 2))
    assert moves.tolist() == [False, False, True] * BIG_STEPS
    assert not states.total[::PERIOD].any()
    assert states.total[1].shape == (WORKERS, D)


def test_the_inner_update_runs_only_when_it_is_due():
    """`optax.MultiSteps` would run it, and communicate, at every step."""
    runs = []

    def update(updates, state, params=None):
        del params
        jax.debug.callback(lambda: runs.append(1))
        return updates, state

    inner = optax.chain(
        averaged(exact()), optax.GradientTransformation(lambda params: (), update)
    )
    gradients = np.float32(GRADIENTS)
    harness.updates(accumulate(inner, PERIOD), np.zeros(D, np.float32), gradients)
    jax.effects_barrier()
    assert len(runs) == BIG_STEPS


def test_with_a_period_of_1_it_is_inner(float64):
    tx = gmc(SCHEDULE, all_gather(top_k(0.2)))
    ours, _ = harness.updates(accumulate(tx, 1), np.zeros(D), BIG)
    theirs, _ = harness.updates(tx, np.zeros(D), BIG)
    np.testing.assert_allclose(ours, theirs, rtol=1e-13)


def test_16_bit_gradients_are_summed_in_float32():
    """In bfloat16, 256 + 1 is 256."""
    gradients = jnp.array([256.0, 1, 1, 1, 1, 1, 1, 10], jnp.bfloat16)
    tx = accumulate(averaged(exact()), 8)
    moved, states = harness.updates(tx, jnp.zeros((), jnp.bfloat16), gradients[:, None])
    assert moved[-1, 0] == 272 / 8
    assert states.total.dtype == np.float32


@pytest.mark.parametrize("period", [0, -1, 1.5])
def test_the_period_must_be_a_whole_number(period):
    with pytest.raises(ValueError, match=r"`period` .* whole number of at least 1"):
        accumulate(averaged(exact()), period)


def test_finite_gradients_have_a_finite_mean():
    """Their sum, taken before the division, is infinite."""
    most = np.finfo(np.float32).max
    gradients = np.full((PERIOD, 2, 4), 0.9 * most, np.float32)
    tx = accumulate(averaged(exact()), PERIOD)
    moved, _ = harness.updates(tx, np.zeros(4, np.float32), gradients)
    np.testing.assert_allclose(moved[-1], 0.9 * most, rtol=1e-6)
