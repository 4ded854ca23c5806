"""Tests of momentum SGD in which every worker sends its own momentum."""

import numpy as np

from gmc_jax import all_gather, dmsgd, dmsgd_local, exact, top_k
from tests.support import harness
from tests.support.virtual_iterates import MOMENTUM, RATE, SCHEDULE, problem


def test_without_loss_it_is_dmsgd_under_any_schedule():
    ours, _ = harness.run(dmsgd_local(SCHEDULE, exact()), problem())
    theirs, _ = harness.run(dmsgd(SCHEDULE, exact()), problem())
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


def test_with_loss_it_is_not():
    """They differ once anything nonlinear sits between."""
    channel = all_gather(top_k(0.2))
    ours, _ = harness.run(dmsgd_local(RATE, channel, momentum=MOMENTUM), problem())
    theirs, _ = harness.run(dmsgd(RATE, channel, momentum=MOMENTUM), problem())
    assert np.abs(ours - theirs).max() > 0.1


def test_every_worker_keeps_its_own_momentum():
    _, states = harness.run(dmsgd_local(RATE, exact()), problem())
    trace = harness.residual(states, "trace")
    assert trace.shape == (51, 4, 20)
    assert np.abs(trace[-1, 0] - trace[-1, 1]).max() > 0.1
