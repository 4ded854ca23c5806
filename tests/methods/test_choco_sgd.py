"""Tests of CHOCO-SGD: its transcription in both orders, its mean, what it equals."""

import functools
from typing import Any, cast

import numpy as np
import optax
import pytest

from gmc_jax import (
    adapt_then_combine,
    choco_sgd,
    dense,
    gossip,
    gossip_differences,
    gossip_differences_overlapped,
    random_block,
    scaled_sign,
    top_k,
    topologies,
)
from tests.support import harness, problems, references_gossip
from tests.support.virtual_iterates import (
    RATE,
    SCHEDULE,
    problem,
    rate_at,
    unruly,
    warm_up,
    warm_up_at,
)

RING, STEP = topologies.ring(4), 0.3
BOTH = [gossip_differences, gossip_differences_overlapped]
TOPOLOGIES = {
    1: topologies.ring(1),
    3: topologies.ring(3),
    8: topologies.exponential(8),
}


RATES = {
    "constant": (RATE, lambda t: RATE),
    "warm-up": (warm_up, warm_up_at),
}


CODES = {
    "top_k": (top_k(0.2), references_gossip.largest(0.2)),
    "scaled_sign": (scaled_sign(), references_gossip.signs),
}


@functools.cache
def everyone(workers: int) -> problems.Problem:
    return problems.quadratics(workers)


@pytest.mark.parametrize(
    ("make", "workers", "rate", "code"),
    [
        (gossip_differences, 8, "warm-up", "scaled_sign"),
        (gossip_differences_overlapped, 3, "constant", "top_k"),
        *(
            pytest.param(make, workers, rate, code, marks=pytest.mark.slow)
            for make in BOTH
            for workers in TOPOLOGIES
            for rate in RATES
            for code in CODES
        ),
    ],
)
def test_it_equals_its_paper(make, workers, rate, code):
    (ours, eta), (compressor, compress) = RATES[rate], CODES[code]
    topology = TOPOLOGIES[workers]
    tx = choco_sgd(ours, make(topology, compressor, STEP), momentum=0.9, nesterov=True)
    weights, states = harness.run(tx, everyone(workers))
    expected, estimates = references_gossip.choco_sgd(
        everyone(workers),
        eta,
        topology.rounds[0],
        STEP,
        compress,
        0.9,
        nesterov=True,
        mix_first=make is gossip_differences_overlapped,
    )
    size = np.abs(expected).max()
    weights = weights.reshape(expected.shape)
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-10 * size)
    kept: Any = optax.tree.get(states, "estimate")
    kept = problems.flat(kept, leading=kept["bias"].ndim - 1).reshape(estimates.shape)
    np.testing.assert_allclose(kept, estimates, rtol=0, atol=1e-10 * size)
    assert np.abs(expected[-1] - expected[0]).max() > 0.1


@pytest.mark.parametrize("make", BOTH)
def test_the_mean_moves_by_the_mean_step_whatever_is_sent(make):
    weights, _ = harness.run(choco_sgd(SCHEDULE, make(RING, unruly(), 0.1)), problem())
    steps = [
        -rate_at(t)
        * np.mean([problem().gradient(k, t, weights[t, k]) for k in range(4)], axis=0)
        for t in range(problem().steps)
    ]
    size = np.abs(weights).max()
    moved = np.diff(weights.mean(axis=1), axis=0)
    np.testing.assert_allclose(moved, steps, rtol=0, atol=1e-12 * size)
    assert np.ptp(weights, axis=1).max() > 0.01


def test_with_all_sent_it_is_d_psgd_that_averages_after_the_step():
    whole = gossip_differences(RING, dense(), 1.0)
    weights, _ = harness.run(choco_sgd(SCHEDULE, whole), problem())
    plain = optax.chain(optax.sgd(SCHEDULE), adapt_then_combine(gossip(RING)))
    expected, _ = harness.run(plain, problem())
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("make", BOTH)
def test_it_trains_where_little_is_sent(make):
    """A tenth of each vector; as with D-PSGD, the error shrinks with the rate."""
    still = everyone(8)._replace(noise=np.zeros((4000, 8, 20)))

    def error(rate):
        channel = make(topologies.ring(8), random_block(0.1), 0.1)
        weights, _ = harness.run(choco_sgd(rate, channel), still)
        return np.linalg.norm(weights[-1].mean(axis=0) - still.optimum)

    assert error(0.005) < 0.5 * error(0.02) < 0.1


def test_errors_name_what_is_wrong():
    channel = gossip_differences(RING, dense(), 1.0)
    with pytest.raises(TypeError, match="`channel` must be a channel"):
        choco_sgd(0.1, cast(Any, RING))
    with pytest.raises(ValueError, match="`momentum`"):
        choco_sgd(0.1, channel, momentum=1.0)
    with pytest.raises(ValueError, match="`learning_rate`"):
        choco_sgd(-0.1, channel)
