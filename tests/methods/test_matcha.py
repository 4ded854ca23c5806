"""Tests of MATCHA: its transcription, its mean, and the fixed graph."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import adapt_then_combine, gossip, matcha, topologies
from gmc_jax.graphs.random_topology import RandomTopology
from tests.support import harness, problems, references_gossip
from tests.support.virtual_iterates import (
    RATE,
    SCHEDULE,
    problem,
    rate_at,
    warm_up,
    warm_up_at,
)

RATES = {"constant": (RATE, lambda t: RATE), "warm-up": (warm_up, warm_up_at)}
GRAPHS = {
    1: np.zeros((1, 1)),
    3: topologies.ring(3).edges,
    8: topologies.torus(2, 4).edges,
}


def draws(topology: RandomTopology, steps: int) -> np.ndarray:
    """Which matchings the library draws at each step, [steps, matchings]: mere data."""
    count = len(topology.matchings)

    def active(step):
        key = jax.random.fold_in(jax.random.key(topology.seed), step)
        draws = jax.random.uniform(key, (count,), jnp.float32)
        return draws < jnp.array(topology.probabilities, jnp.float32)

    return np.asarray(jax.vmap(active)(jnp.arange(steps)))


@pytest.mark.parametrize(
    ("workers", "rate", "momentum"),
    [
        (8, "warm-up", 0.9),
        *(
            pytest.param(workers, rate, momentum, marks=pytest.mark.slow)
            for workers in GRAPHS
            for rate in RATES
            for momentum in (0.0, 0.9)
        ),
    ],
)
def test_it_equals_its_paper(workers, rate, momentum):
    ours, eta = RATES[rate]
    everyone = problems.quadratics(workers)
    topology = topologies.matcha(GRAPHS[workers], 0.5, seed=3)
    weights, _ = harness.run(matcha(ours, topology, momentum=momentum), everyone)
    expected = references_gossip.matcha(
        everyone,
        eta,
        topology.matchings,
        draws(topology, everyone.steps),
        topology.weight,
        momentum,
    )
    weights = weights.reshape(expected.shape)
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-10)
    assert np.abs(expected[-1] - expected[0]).max() > 0.1


def test_with_the_whole_budget_it_is_d_psgd_over_a_fixed_graph():
    topology = topologies.matcha(topologies.ring(4).edges, 1.0)
    weights, _ = harness.run(matcha(SCHEDULE, topology), problem())
    fixed = topologies.ring(4, self_weight=1 - 2 * topology.weight)
    plain = optax.chain(optax.sgd(SCHEDULE), adapt_then_combine(gossip(fixed)))
    expected, _ = harness.run(plain, problem())
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-12)


def test_the_mean_moves_by_the_mean_step():
    topology = topologies.matcha(topologies.ring(4).edges, 0.5)
    weights, _ = harness.run(matcha(SCHEDULE, topology), problem())
    steps = [
        -rate_at(t)
        * np.mean([problem().gradient(k, t, weights[t, k]) for k in range(4)], axis=0)
        for t in range(problem().steps)
    ]
    moved = np.diff(weights.mean(axis=1), axis=0)
    np.testing.assert_allclose(moved, steps, rtol=0, atol=1e-13)
    assert np.ptp(weights, axis=1).max() > 0.01


def test_errors_name_what_is_wrong():
    topology = topologies.matcha(topologies.ring(4).edges, 0.5)
    with pytest.raises(TypeError, match=r"`topology` must have matchings"):
        matcha(0.1, cast(Any, topologies.ring(4)))
    with pytest.raises(ValueError, match="`momentum`"):
        matcha(0.1, topology, momentum=1.0)
    with pytest.raises(ValueError, match="`learning_rate`"):
        matcha(-0.1, topology)
