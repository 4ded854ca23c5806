"""Tests of gradient tracking: its equations, its means, and where it comes to rest."""

from typing import Any, cast

import numpy as np
import optax
import pytest

from gmc_jax import d_psgd, gradient_tracking, topologies
from tests.support import harness, problems, references_gossip
from tests.support.virtual_iterates import (
    RATE,
    SCHEDULE,
    assert_moves_by,
    problem,
    rate_at,
)

RING = topologies.ring(4)
RATES = {"constant": (RATE, lambda t: RATE), "cosine": (SCHEDULE, rate_at)}


@pytest.mark.parametrize(
    ("topology", "rate", "momentum", "nesterov"),
    [
        (RING, "constant", 0.0, False),
        (RING, "cosine", 0.9, False),
        (topologies.one_peer_exponential(4), "cosine", 0.9, True),
    ],
)
def test_it_equals_its_equations(topology, rate, momentum, nesterov):
    ours, eta = RATES[rate]
    tx = gradient_tracking(ours, topology, momentum=momentum, nesterov=nesterov)
    weights, states = harness.run(tx, problem())
    expected, trackers = references_gossip.gradient_tracking(
        problem(), eta, topology.rounds, momentum, nesterov=nesterov
    )
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-10)
    ours = problems.flat(optax.tree.get(states, "tracker"), leading=2)[1:]
    np.testing.assert_allclose(ours, trackers, rtol=0, atol=1e-10)


def test_means_move_by_mean_gradients():
    weights, states = harness.run(gradient_tracking(RATE, RING), problem())
    gradients = np.stack(
        [
            np.mean([problem().gradient(k, t, weights[t, k]) for k in range(4)], 0)
            for t in range(problem().steps)
        ]
    )
    trackers = problems.flat(optax.tree.get(states, "tracker"), leading=2)[1:]
    np.testing.assert_allclose(trackers.mean(axis=1), gradients, rtol=0, atol=1e-11)
    assert_moves_by(weights.mean(axis=1), -RATE * gradients)


def test_it_comes_to_the_optimum_where_d_psgd_stalls():
    still = problems.quadratics(8, d=6)._replace(noise=np.zeros((1500, 8, 6)))

    def furthest(tx):
        weights, _ = harness.run(tx, still)
        return np.linalg.norm(weights[-1] - still.optimum, axis=1).max()

    ring = topologies.ring(8)
    assert furthest(gradient_tracking(0.05, ring)) < 1e-10
    assert furthest(d_psgd(0.05, ring)) > 0.1


def test_errors_name_what_is_wrong():
    with pytest.raises(TypeError, match="`topology` must be a topology"):
        gradient_tracking(0.1, cast(Any, np.eye(4)))
    with pytest.raises(ValueError, match="doubly stochastic"):
        gradient_tracking(0.1, topologies.pushing([[0, 1, 1], [1, 0, 0], [1, 0, 0]]))
    with pytest.raises(ValueError, match="`learning_rate`"):
        gradient_tracking(-1, RING)
    with pytest.raises(ValueError, match="`momentum`"):
        gradient_tracking(0.1, RING, momentum=1.0)
