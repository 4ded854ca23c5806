"""Tests of steps that all workers skip where one of them has a NaN or Inf."""

import chex
import jax
import numpy as np
import pytest

from gmc_jax import (
    all_gather,
    dgc,
    drop_all,
    error_feedback,
    gmc,
    skip_nonfinite,
    top_k,
)
from tests.support import harness, problems
from tests.support.virtual_iterates import RATE, SCHEDULE, problem

BAD = {3: 0, 4: 2, 17: 3, 30: 1, 49: 0}  # step: worker


def poisoned(value: float) -> problems.Problem:
    """One coordinate of one worker's gradient is not finite at some steps."""
    noise = problem().noise.copy()
    for step, worker in BAD.items():
        noise[step, worker, 5] = value
    return problem()._replace(noise=noise)


def without_the_bad_steps() -> problems.Problem:
    return problem()._replace(noise=np.delete(problem().noise, list(BAD), axis=0))


@pytest.mark.parametrize(
    ("make", "value"), [(gmc, np.nan), (dgc, np.inf), (dgc, -np.inf)]
)
def test_all_workers_skip_the_step_as_if_it_had_never_been(make, value):
    """The schedule, the residuals and the momentum included."""
    tx = skip_nonfinite(make(SCHEDULE, all_gather(top_k(0.2))))
    weights, states = harness.run(tx, poisoned(value))
    expected, expected_states = harness.run(tx, without_the_bad_steps())

    good = np.delete(np.arange(50), list(BAD)) + 1
    np.testing.assert_allclose(weights[good], expected[1:], rtol=1e-12)
    last = jax.tree.map(lambda leaf: leaf[-1], states.inner)
    chex.assert_trees_all_close(
        last, jax.tree.map(lambda leaf: leaf[-1], expected_states.inner), rtol=1e-9
    )
    chex.assert_tree_all_finite(states)


def test_the_steps_skipped_are_counted():
    tx = skip_nonfinite(gmc(RATE, all_gather(top_k(0.2))))
    weights, states = harness.run(tx, poisoned(np.nan))
    counts = np.cumsum([0, *(step in BAD for step in range(50))])
    np.testing.assert_array_equal(states.skipped, counts)
    still = np.all(np.diff(weights, axis=0) == 0, axis=1)
    assert set(np.flatnonzero(still)) == set(BAD)


def test_training_ends_near_the_clean_run():
    tx = gmc(RATE, all_gather(top_k(0.2)))
    clean, _ = harness.run(tx, problem())
    guarded, _ = harness.run(skip_nonfinite(tx), poisoned(np.nan))
    start = np.linalg.norm(clean[0] - clean[-1])
    assert np.linalg.norm(guarded[-1] - clean[-1]) < 0.3 * start


def test_without_the_guard_it_breaks_for_good():
    weights, states = harness.run(gmc(RATE, all_gather(top_k(0.2))), poisoned(np.nan))
    assert np.isfinite(weights[3]).all()
    assert np.isnan(weights[4:]).any(axis=1).all()
    assert np.isnan(harness.residual(states)[-1]).any()


def test_with_finite_updates_it_changes_nothing():
    tx = gmc(SCHEDULE, all_gather(top_k(0.2)))
    ours, states = harness.run(skip_nonfinite(tx), problem())
    theirs, inner = harness.run(tx, problem())
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    chex.assert_trees_all_close(states.inner, inner, rtol=1e-9)
    assert not states.skipped.any()


def test_a_nan_that_no_worker_would_send_is_skipped_too():
    """It would stay in a residual, and all updates would be finite."""
    tx = skip_nonfinite(error_feedback(drop_all()))
    gradients = np.ones((2, 3, 4), np.float32)
    gradients[0, 1, 2] = np.nan
    _, states = harness.updates(tx, np.zeros(4, np.float32), gradients)
    np.testing.assert_array_equal(states.skipped, [0, 1, 1])
    np.testing.assert_array_equal(states.inner.residual[-1], 1)
