"""Tests of DoubleSqueeze: what its two residuals hold."""

import numpy as np
import optax
import pytest

from gmc_jax import (
    all_gather,
    dense,
    dist_ef_sgdm,
    dmsgd,
    double_squeeze,
    error_feedback,
    exact,
    scaled_sign,
    simulated_server,
    top_k,
    two_phase,
)
from gmc_jax.transforms._learning_rate import descent
from tests.support import harness, problems
from tests.support.virtual_iterates import (
    CHANNELS,
    RATE,
    SCHEDULE,
    assert_moves_by,
    mean_gradients,
    problem,
    unruly,
)

BOTH_WAYS = {
    "top_k": (CHANNELS["top_k"], simulated_server(top_k(0.1))),
    "random_block": (CHANNELS["random_block"], simulated_server(top_k(0.1))),
    "unruly": (CHANNELS["top_k"], simulated_server(unruly())),
    "signs": (all_gather(scaled_sign()), simulated_server(scaled_sign())),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "top_k" else pytest.mark.slow)
        for name in BOTH_WAYS
    ],
)
def test_less_both_residuals_it_is_sgd_at_a_constant_rate(name):
    """w_t - lr * (e + mean of e_k)."""
    weights, states = harness.run(double_squeeze(RATE, *BOTH_WAYS[name]), problem())
    workers = problems.flat(states[0].residual, leading=2)
    server = problems.flat(states[1].residual, leading=1)
    points = weights - RATE * (workers.mean(axis=1) + server)
    assert_moves_by(points, -RATE * mean_gradients(weights))
    assert np.abs(workers).max() > 0.01
    assert np.abs(server).max() > 0.01


def test_without_loss_it_is_sgd():
    lossless = double_squeeze(SCHEDULE, exact(), simulated_server(dense()))
    ours, _ = harness.run(lossless, problem())
    sgd, _ = harness.run(dmsgd(SCHEDULE, exact(), momentum=0), problem())
    np.testing.assert_allclose(ours, sgd, rtol=1e-12, atol=1e-13)


@pytest.mark.slow
def test_at_a_constant_rate_it_is_dist_ef_sgdm_without_momentum():
    channels = BOTH_WAYS["top_k"]

    def apart(rate) -> float:
        ours, _ = harness.run(double_squeeze(rate, *channels), problem())
        theirs, _ = harness.run(dist_ef_sgdm(rate, *channels, momentum=0), problem())
        return np.abs(ours - theirs).max()

    assert apart(RATE) < 1e-10
    assert apart(SCHEDULE) > 1e-4


def test_an_answer_that_is_sent_obeys_the_same_law():
    """Through two phases one residual holds both."""
    tx = optax.chain(error_feedback(two_phase(scaled_sign())), descent(RATE))
    weights, states = harness.run(tx, problem())
    residuals = harness.residual(states)
    points = weights - RATE * residuals.mean(axis=1)
    assert_moves_by(points, -RATE * mean_gradients(weights))
    assert np.abs(residuals).max() > 0.01


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="`channel` and `server_channel` must average"):
        double_squeeze(0.1, exact(), exact(axis_name="others"))
    with pytest.raises(ValueError, match="`learning_rate` must be finite"):
        double_squeeze(-0.1, exact(), exact())
