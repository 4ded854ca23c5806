"""Tests of EF21-SGDM: its limits, and that differences vanish where gradients do."""

import jax
import numpy as np
import optax
import pytest

from gmc_jax import all_gather, averaged, ef21, ef_sgd, exact, top_k
from tests.support import harness, problems
from tests.support.virtual_iterates import CHANNELS, MOMENTUM, SCHEDULE, problem


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "unruly" else pytest.mark.slow)
        for name in CHANNELS
    ],
)
def test_the_server_holds_the_mean_of_what_workers_hold(name):
    """Even through a compressor that is no contraction."""
    weights, states = harness.run(ef21(SCHEDULE, CHANNELS[name]), problem())
    sent = harness.residual(states, "sent").mean(axis=1)
    mean = problems.flat(states[1].mean, leading=1)
    np.testing.assert_allclose(mean, sent, rtol=0, atol=1e-11 * np.abs(sent).max())
    assert np.abs(sent[-1]).max() > 1e-3
    assert weights.ndim == 2


@pytest.mark.parametrize("momentum", [0.0, MOMENTUM])
def test_without_loss_it_is_sgd_with_an_average_of_gradients(momentum):
    ours, _ = harness.run(ef21(SCHEDULE, exact(), momentum=momentum), problem())
    sgd = optax.chain(
        averaged(exact()),
        optax.ema(momentum, debias=False),
        optax.scale_by_learning_rate(SCHEDULE),
    )
    theirs, _ = harness.run(sgd, problem())
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


def test_unlike_error_feedback_it_reaches_the_optimum():
    """Of workers that disagree, without noise, at a constant rate."""
    quiet = problems.quadratics(steps=400)
    quiet = quiet._replace(noise=np.zeros_like(quiet.noise))
    channel = all_gather(top_k(0.1))
    ours, _ = harness.run(ef21(0.1, channel, momentum=None), quiet)
    theirs, _ = harness.run(ef_sgd(0.1, channel), quiet)
    gaps = [np.abs(weights[-1] - quiet.optimum).max() for weights in (ours, theirs)]
    assert gaps[0] < 1e-8
    assert gaps[1] > 1e-3


def test_without_momentum_there_is_no_buffer():
    states = [
        ef21(0.1, exact(), momentum=momentum).init(np.ones(8))
        for momentum in (None, 0.0, 0.9)
    ]
    sizes = [sum(np.size(leaf) for leaf in jax.tree.leaves(x)) for x in states]
    assert sizes[0] == sizes[1] < sizes[2] - 7
