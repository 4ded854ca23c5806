"""Tests of QG-DSGDm: its transcription, its mean, and its special cases."""

from typing import Any, cast

import numpy as np
import optax
import pytest

from gmc_jax import adapt_then_combine, gossip, qg_dsgdm, topologies
from tests.support import harness, problems, references_gossip
from tests.support.virtual_iterates import (
    RATE,
    SCHEDULE,
    assert_moves_by,
    problem,
    rate_at,
    warm_up,
    warm_up_at,
)

RATES = {
    "constant": (RATE, lambda t: RATE),
    "warm-up": (warm_up, warm_up_at),
}
RING = topologies.ring(4)
TOPOLOGIES = {
    1: topologies.ring(1),
    3: topologies.random_matchings(3, rounds=2),
    8: topologies.torus(2, 4),
}


@pytest.mark.parametrize(
    ("workers", "rate", "nesterov", "mu"),
    [
        (3, "constant", True, 0.8),
        (8, "warm-up", False, 0.9),
        *(
            pytest.param(workers, rate, nesterov, 0.9, marks=pytest.mark.slow)
            for workers in TOPOLOGIES
            for rate in RATES
            for nesterov in (False, True)
        ),
    ],
)
def test_it_equals_its_paper(workers, rate, nesterov, mu):
    ours, eta = RATES[rate]
    everyone, topology = problems.quadratics(workers), TOPOLOGIES[workers]
    tx = qg_dsgdm(ours, topology, buffer_decay=mu, nesterov=nesterov)
    weights, states = harness.run(tx, everyone)
    expected, buffers = references_gossip.qg_dsgdm(
        everyone, eta, topology.rounds, mu=mu, nesterov=nesterov
    )
    weights = weights.reshape(expected.shape)
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-10)
    kept = problems.flat(states.momentum, leading=states.momentum["bias"].ndim - 1)
    kept = kept.reshape(buffers.shape)
    np.testing.assert_allclose(kept, buffers, rtol=0, atol=1e-9)
    assert np.abs(expected[-1] - expected[0]).max() > 0.1


def test_the_mean_moves_by_the_mean_momentum():
    weights, states = harness.run(qg_dsgdm(SCHEDULE, RING), problem())
    buffers = problems.flat(states.momentum, leading=2)
    steps = [
        -rate_at(t)
        * np.mean(
            [
                0.9 * buffers[t, k] + problem().gradient(k, t, weights[t, k])
                for k in range(4)
            ],
            axis=0,
        )
        for t in range(problem().steps)
    ]
    assert_moves_by(weights.mean(axis=1), np.stack(steps))


def test_without_momentum_it_is_d_psgd_that_averages_after_the_step():
    weights, _ = harness.run(qg_dsgdm(SCHEDULE, RING, momentum=None), problem())
    plain = optax.chain(optax.sgd(SCHEDULE), adapt_then_combine(gossip(RING)))
    expected, _ = harness.run(plain, problem())
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("workers", [1, 4])
def test_who_hears_all_has_quasi_hyperbolic_momentum(workers):
    everyone = problems.quadratics(workers)
    tx = qg_dsgdm(RATE, topologies.complete(workers), momentum=0.8, buffer_decay=0.7)
    weights, _ = harness.run(tx, everyone)
    w, v = everyone.start, 0 * everyone.start
    expected = [w]
    for t in range(everyone.steps):
        g = everyone.mean_gradient(t, w)
        w = w - RATE * (0.8 * v + g)
        v = (0.7 + 0.3 * 0.8) * v + 0.3 * g
        expected.append(w)
    weights = weights.reshape(len(expected), workers, -1)
    for k in range(workers):
        np.testing.assert_allclose(weights[:, k], expected, rtol=0, atol=1e-11)


def test_errors_name_what_is_wrong():
    pushing = topologies.pushing([[0, 1, 1], [0, 0, 0], [0, 0, 0]])
    with pytest.raises(ValueError, match=r"doubly stochastic.*Use `sgp`"):
        qg_dsgdm(0.1, pushing)
    with pytest.raises(TypeError, match="`topology` must be a topology"):
        qg_dsgdm(0.1, cast(Any, np.eye(4)))
    with pytest.raises(ValueError, match="`momentum`"):
        qg_dsgdm(0.1, RING, momentum=1.0)
    with pytest.raises(ValueError, match="`buffer_decay`"):
        qg_dsgdm(0.1, RING, buffer_decay=1.0)
    with pytest.raises(ValueError, match="`learning_rate`"):
        qg_dsgdm(-0.1, RING)
