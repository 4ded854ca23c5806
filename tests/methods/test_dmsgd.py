"""Tests of momentum SGD with the momentum of the average."""

import numpy as np
import optax
import pytest

from gmc_jax import averaged, dmsgd, exact
from tests.support import harness
from tests.support.virtual_iterates import MOMENTUM, RATE, SCHEDULE, problem


@pytest.mark.parametrize("rate", [RATE, SCHEDULE], ids=["constant", "cosine"])
def test_without_loss_it_is_serial_momentum_sgd_under_any_schedule(rate):
    ours, states = harness.run(dmsgd(rate, exact(), momentum=MOMENTUM), problem())
    sgd = optax.chain(averaged(exact()), optax.sgd(rate, momentum=MOMENTUM))
    theirs, _ = harness.run(sgd, problem())
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)
    # One momentum for all workers.
    assert optax.tree.get(states, "trace")["bias"].shape == (51, 4)
