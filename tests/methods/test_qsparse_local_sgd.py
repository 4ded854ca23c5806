"""Tests of compressed local steps: what they conserve, and what they contain."""

import numpy as np
import optax
import pytest

from gmc_jax import ef_sgd, exact, local_sgd, qsparse_local_sgd
from tests.support import harness, problems
from tests.support.virtual_iterates import CHANNELS, SCHEDULE, problem, rate_at

PERIOD = 4


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "unruly" else pytest.mark.slow)
        for name in CHANNELS
    ],
)
def test_nothing_of_the_local_steps_is_lost(name):
    """Through any channel, even one that shifts and doubles what it is given."""
    tx = qsparse_local_sgd(SCHEDULE, CHANNELS[name], period=PERIOD)
    weights, states = harness.run(tx, problem())
    steps = np.stack(
        [
            [rate_at(t) * problem().gradient(k, t, weights[t, k]) for k in range(4)]
            for t in range(problem().steps)
        ]
    ).mean(axis=1)
    anchors = problems.flat(states.anchor, leading=1)
    virtual = anchors - harness.residual(states).mean(axis=1)
    synced = range(0, problem().steps + 1, PERIOD)
    taken = np.concatenate([np.zeros((1, 20)), np.cumsum(steps, axis=0)])[synced]
    size = np.abs(harness.residual(states)).max()
    np.testing.assert_allclose(
        virtual[synced], problem().start - taken, rtol=0, atol=1e-12 * size
    )
    assert size > 0.1


@pytest.mark.slow
def test_every_step_it_is_error_feedback():
    tx = qsparse_local_sgd(SCHEDULE, CHANNELS["top_k"], period=1)
    ours, states = harness.run(tx, problem())
    theirs, others = harness.run(ef_sgd(SCHEDULE, CHANNELS["top_k"]), problem())
    np.testing.assert_allclose(
        ours, theirs[:, None].repeat(4, axis=1), rtol=0, atol=1e-12
    )
    # Residuals there are steps, signed as updates are.
    np.testing.assert_allclose(
        harness.residual(states), -harness.residual(others), rtol=0, atol=1e-12
    )
    assert np.abs(harness.residual(states)).max() > 0.1


def test_without_loss_it_is_local_sgd():
    options = {"period": PERIOD, "momentum": 0.9}
    ours, states = harness.run(
        qsparse_local_sgd(SCHEDULE, exact(), **options), problem()
    )
    theirs, _ = harness.run(local_sgd(SCHEDULE, exact(), **options), problem())
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    assert not np.any(problems.flat(optax.tree.get(states, "residual"), leading=1))


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="`period`"):
        qsparse_local_sgd(0.1, exact(), period=0)
    with pytest.raises(ValueError, match="`momentum`"):
        qsparse_local_sgd(0.1, exact(), period=2, momentum=1.0)
