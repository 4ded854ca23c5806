"""Tests of gossip SGD: its transcriptions, its mean, its bias, its special cases."""

import functools
from typing import Any, cast

import numpy as np
import optax
import pytest

from gmc_jax import (
    adapt_then_combine,
    averaged,
    combine_then_adapt,
    d_psgd,
    exact,
    gossip,
    no_communication,
    topologies,
)
from tests.support import harness, problems, references_gossip
from tests.support.virtual_iterates import RATE, SCHEDULE, problem, rate_at

RATES = {"constant": (RATE, lambda t: RATE), "cosine": (SCHEDULE, rate_at)}
TOPOLOGIES = {
    1: topologies.ring(1),
    2: topologies.ring(2),
    5: topologies.random_matchings(5, rounds=3),
    8: topologies.torus(2, 4),
}
atol = functools.partial(np.testing.assert_allclose, rtol=0)


def adapt_first(rate, topology, momentum=0.0):
    """The order that codes commonly have."""
    return optax.chain(optax.sgd(rate, momentum), adapt_then_combine(gossip(topology)))


@pytest.mark.parametrize(
    ("workers", "momentum", "nesterov", "rate"),
    [
        (1, 0.9, False, "cosine"),
        (2, 0.9, True, "constant"),
        (5, 0.0, False, "cosine"),
        (8, 0.9, False, "constant"),
    ],
)
def test_it_equals_its_paper(workers, momentum, nesterov, rate):
    ours, eta = RATES[rate]
    everyone = problems.quadratics(workers)
    topology = TOPOLOGIES[workers]
    tx = d_psgd(ours, topology, momentum=momentum, nesterov=nesterov)
    weights, _ = harness.run(tx, everyone)
    expected = references_gossip.d_psgd(
        everyone, eta, topology.rounds, momentum, nesterov=nesterov
    )
    atol(weights.reshape(expected.shape), expected, atol=1e-10)
    assert np.abs(expected[-1] - expected[0]).max() > 0.1


@pytest.mark.parametrize("workers", [5, 8])
def test_the_other_order_equals_its_transcription(workers):
    everyone = problems.quadratics(workers)
    topology = TOPOLOGIES[workers]
    weights, _ = harness.run(adapt_first(SCHEDULE, topology, 0.9), everyone)
    expected = references_gossip.d_psgd(
        everyone, rate_at, topology.rounds, 0.9, adapt_first=True
    )
    atol(weights, expected, atol=1e-10)


@pytest.mark.parametrize("make", [d_psgd, adapt_first])
def test_the_mean_moves_by_the_mean_step(make):
    weights, _ = harness.run(make(SCHEDULE, topologies.ring(4)), problem())
    steps = [
        -rate_at(t)
        * np.mean([problem().gradient(k, t, weights[t, k]) for k in range(4)], axis=0)
        for t in range(problem().steps)
    ]
    atol(np.diff(weights.mean(axis=1), axis=0), steps, atol=1e-13)
    assert np.ptp(weights, axis=1).max() > 0.01


def test_on_the_complete_graph_adapt_first_is_parallel_sgd():
    weights, _ = harness.run(adapt_first(SCHEDULE, topologies.complete(4)), problem())
    sgd, _ = harness.run(optax.chain(averaged(exact()), optax.sgd(SCHEDULE)), problem())
    atol(weights, sgd[:, None].repeat(4, axis=1), atol=1e-12)
    everyone, _ = harness.run(
        optax.chain(optax.sgd(SCHEDULE), adapt_then_combine(exact())), problem()
    )
    atol(everyone, sgd, atol=1e-12)  # which the layout proves to be alike


@pytest.mark.parametrize("consensus", [adapt_then_combine, combine_then_adapt])
def test_who_hears_nobody_is_alone(consensus):
    apart, _ = harness.run(
        optax.chain(optax.sgd(RATE), consensus(no_communication())), problem()
    )
    for k in range(4):
        mine = problems.Problem(
            problem().hessians[[k]],
            problem().targets[[k]],
            problem().noise[:, [k]],
            problem().start,
        )
        expected = references_gossip.d_psgd(mine, lambda t: RATE, (np.eye(1),))
        atol(apart[:, k], expected[:, 0], atol=1e-11)


def test_workers_that_disagree_rest_away_from_the_optimum():
    """What D2 is for."""
    still = problem()._replace(noise=np.zeros((2000, 4, 20)))
    weights = references_gossip.d_psgd(still, lambda t: 0.1, topologies.ring(4).rounds)
    optimum = np.linalg.solve(
        still.hessians.mean(axis=0),
        np.einsum("kij,kj->i", still.hessians, still.targets) / 4,
    )
    assert np.abs(np.diff(weights[-2:], axis=0)).max() < 1e-12
    assert np.linalg.norm(weights[-1].mean(axis=0) - optimum) > 0.01
    assert np.linalg.norm(weights[-1] - optimum, axis=1).min() > 0.1


def test_errors_name_what_is_wrong():
    pushing = topologies.pushing([[0, 1, 1], [0, 0, 0], [0, 0, 0]])
    with pytest.raises(ValueError, match=r"doubly stochastic.*Use `sgp`"):
        d_psgd(0.1, pushing)
    with pytest.raises(ValueError, match="`momentum`"):
        d_psgd(0.1, topologies.ring(3), momentum=1.0)
    with pytest.raises(ValueError, match="`learning_rate`"):
        d_psgd(-0.1, topologies.ring(3))
    for consensus in (adapt_then_combine, combine_then_adapt):
        tx = consensus(no_communication())
        with pytest.raises(ValueError, match=f"`{consensus.__name__}` computes"):
            tx.update(np.ones(2), tx.init(np.ones(2)))
        with pytest.raises(TypeError, match="`channel` must be a channel"):
            consensus(cast(Any, topologies.ring(3)))
