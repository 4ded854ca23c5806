"""Tests of error feedback of signs, leaf by leaf."""

import numpy as np
import pytest

from gmc_jax import all_gather, ef_sgd, ef_sign_sgd, scaled_sign
from tests.support import harness
from tests.support.virtual_iterates import SCHEDULE, problem, rate_at


def test_ef_sign_sgd_is_error_feedback_of_signs_leaf_by_leaf():
    ours, states = harness.run(ef_sign_sgd(SCHEDULE), problem())
    same, _ = harness.run(
        ef_sgd(SCHEDULE, all_gather(scaled_sign(), per_leaf=True)), problem()
    )
    np.testing.assert_array_equal(ours, same)
    w = problem().start
    es = np.zeros((4, 20))
    expected = [w]
    for t in range(problem().steps):
        mean = np.zeros(20)
        for k in range(4):
            p = es[k] + rate_at(t) * problem().gradient(k, t, w)
            c = np.concatenate(
                [np.abs(x).mean() * np.where(x >= 0, 1, -1) for x in (p[:4], p[4:])]
            )
            es[k] = p - c
            mean += c / 4
        w = w - mean
        expected.append(w)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(harness.residual(states)[-1], -es, rtol=0, atol=1e-10)
    steps = -np.stack(
        [rate_at(t) * problem().mean_gradient(t, w) for t, w in enumerate(ours[:-1])]
    )
    virtual = ours + harness.residual(states).mean(axis=1)
    np.testing.assert_allclose(np.diff(virtual, axis=0), steps, rtol=0, atol=1e-11)


def test_a_rate_is_finite():
    with pytest.raises(ValueError, match="`learning_rate`"):
        ef_sign_sgd(np.inf)
