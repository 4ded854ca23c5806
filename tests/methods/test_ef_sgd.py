"""Tests of error feedback without momentum."""

import numpy as np
import optax
import pytest

from gmc_jax import averaged, ef_sgd, exact
from tests import problems
from tests.identities import (
    CHANNELS,
    RATE,
    RATES,
    SCHEDULE,
    assert_moves_by,
    mean_gradients,
    problem,
)
from tests.problems import residual


@pytest.mark.parametrize("name", CHANNELS)
def test_without_what_is_owed_it_is_sgd(name):
    """w_t - mean e_t, for any compressor and schedule; our residual is -e."""
    weights, states = problems.run(ef_sgd(SCHEDULE, CHANNELS[name]), problem())
    paid = weights + residual(states).mean(axis=1)
    steps = -RATES * mean_gradients(weights)
    assert_moves_by(paid, steps)
    assert np.abs(residual(states)).max() > 0.01


def test_without_loss_it_is_sgd():
    ours, _ = problems.run(ef_sgd(RATE, exact()), problem())
    sgd = optax.chain(averaged(exact()), optax.sgd(RATE))
    theirs, _ = problems.run(sgd, problem())
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
