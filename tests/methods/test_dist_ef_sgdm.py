"""Tests of error feedback both ways: what the two residuals hold."""

import numpy as np
import optax
import pytest

from gmc_jax import (
    all_gather,
    averaged,
    dense,
    dist_ef_sgdm,
    exact,
    scaled_sign,
    simulated_server,
    top_k,
)
from tests.support import harness, problems, references, references_server
from tests.support.virtual_iterates import (
    CHANNELS,
    MOMENTUM,
    RATE,
    RATES,
    SCHEDULE,
    assert_moves_by,
    mean_gradients,
    problem,
    rate_at,
    unruly,
)

SIGNS = (
    all_gather(scaled_sign(), per_leaf=True),
    simulated_server(scaled_sign(), per_leaf=True),
)
BOTH_WAYS = {
    **{
        name: (channel, simulated_server(top_k(0.1)))
        for name, channel in CHANNELS.items()
    },
    "an unruly server": (CHANNELS["top_k"], simulated_server(unruly())),
    "signs": SIGNS,
}


def residuals(states) -> tuple[np.ndarray, np.ndarray]:
    """Those of the workers, [steps + 1, workers, d], and the server's, without."""
    *_, workers, server = states
    return (
        problems.flat(workers.residual, leading=2),
        problems.flat(server.residual, leading=1),
    )


@pytest.mark.parametrize("name", BOTH_WAYS)
def test_less_both_residuals_it_is_sgd(name):
    """w_t - mean of e_k - e, under any schedule; ours are signed as updates are."""
    tx = dist_ef_sgdm(SCHEDULE, *BOTH_WAYS[name], momentum=0)
    weights, states = harness.run(tx, problem())
    workers, server = residuals(states)
    points = weights + workers.mean(axis=1) + server
    assert_moves_by(points, -RATES * mean_gradients(weights))
    assert np.abs(workers).max() > 0.01
    assert np.abs(server).max() > 0.01


@pytest.mark.parametrize(
    "channels", [(exact(), simulated_server(dense())), (exact(), exact())]
)
def test_without_loss_it_is_nesterovs_momentum_sgd(channels):
    ours, _ = harness.run(dist_ef_sgdm(SCHEDULE, *channels), problem())
    sgd = optax.chain(averaged(exact()), optax.sgd(SCHEDULE, MOMENTUM, nesterov=True))
    theirs, _ = harness.run(sgd, problem())
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


def test_residuals_are_the_papers_times_the_rate():
    """The factor lr_{t-1} / lr_t of the paper, without a division."""
    tx = dist_ef_sgdm(SCHEDULE, CHANNELS["top_k"], simulated_server(top_k(0.2)))
    weights, states = harness.run(tx, problem())
    expected, theirs = references_server.dist_ef_sgdm(
        problem(), rate_at, references.largest(0.1), server=references.largest(0.2)
    )
    np.testing.assert_allclose(weights, expected, rtol=1e-9, atol=1e-11)
    ours, _ = residuals(states)
    np.testing.assert_allclose(
        ours[1:], -RATES[:, None] * theirs[1:], rtol=1e-8, atol=1e-11
    )


def test_what_the_server_answers_is_sparse():
    tx = dist_ef_sgdm(RATE, CHANNELS["random_block"], simulated_server(top_k(0.1)))
    weights, _ = harness.run(tx, problem())
    moved = np.count_nonzero(np.diff(weights, axis=0), axis=1)
    assert (moved <= 2).all()
    assert moved.max() == 2


def test_signs_both_ways_train():
    """One step by hand: both scales, both residuals, leaf by leaf."""
    tx = dist_ef_sgdm(RATE, *SIGNS, momentum=MOMENTUM)
    weights, states = harness.run(tx, problem())

    def signs(v):
        leaves = np.split(v, [4])
        scaled = [np.abs(x).mean() * np.where(x >= 0, 1, -1) for x in leaves]
        return np.concatenate(scaled)

    steps = np.stack(
        [
            -RATE * (1 + MOMENTUM) * problem().gradient(k, 0, problem().start)
            for k in range(4)
        ]
    )
    sent = np.stack([signs(step) for step in steps])
    answer = signs(sent.mean(axis=0))
    workers, server = residuals(states)
    np.testing.assert_allclose(weights[1] - weights[0], answer, rtol=1e-10)
    np.testing.assert_allclose(workers[1], steps - sent, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(
        server[1], sent.mean(axis=0) - answer, rtol=1e-10, atol=1e-14
    )
    # And the targets are reached as nearly as their disagreement allows.
    mean = problem().targets.mean(axis=0)
    assert np.linalg.norm(weights[-1] - mean) < 0.5 * np.linalg.norm(weights[0] - mean)
