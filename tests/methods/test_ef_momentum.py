"""Tests of error feedback behind local momentum."""

import numpy as np
import pytest

from gmc_jax import dmsgd, ef_momentum, ef_sgd, exact
from tests.support import harness
from tests.support.harness import residual
from tests.support.virtual_iterates import (
    CHANNELS,
    MOMENTUM,
    RATES,
    SCHEDULE,
    assert_moves_by,
    buffered,
    mean_gradients,
    problem,
)


@pytest.mark.parametrize("name", CHANNELS)
def test_less_the_residuals_it_is_momentum_sgd(name):
    """w_t - mean e_t, the gradients taken at w_t, in the form of the buffer."""
    tx = ef_momentum(SCHEDULE, CHANNELS[name], momentum=MOMENTUM)
    weights, states = harness.run(tx, problem())
    paid = weights + residual(states).mean(axis=1)
    steps = -RATES * buffered(mean_gradients(weights))
    assert_moves_by(paid, steps)


def test_without_momentum_it_is_ef_sgd():
    channel = CHANNELS["top_k"]
    ours, _ = harness.run(ef_momentum(SCHEDULE, channel, momentum=0), problem())
    theirs, _ = harness.run(ef_sgd(SCHEDULE, channel), problem())
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_without_loss_it_is_dmsgd():
    ours, _ = harness.run(ef_momentum(SCHEDULE, exact()), problem())
    theirs, _ = harness.run(dmsgd(SCHEDULE, exact()), problem())
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)
