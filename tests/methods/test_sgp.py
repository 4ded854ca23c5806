"""Tests of push-sum: its paper, its mass, and the graphs on which it is SGD."""

import functools
from typing import Any, cast

import jax
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import gossip, message_bits, push_sum, sgp, topologies, wire_bytes
from gmc_jax.graphs.topology import Topology
from tests.support import harness, problems, references_gossip
from tests.support.virtual_iterates import RATE, SCHEDULE, problem, rate_at

RATES = {"constant": (RATE, lambda t: RATE), "cosine": (SCHEDULE, rate_at)}
# Who hears whom: nobody as many as another.
UNEVEN = topologies.pushing(np.triu(np.ones((5, 5))) + np.eye(5, k=-1))
SWITCHING = Topology(
    (UNEVEN.rounds[0], topologies.pushing(np.eye(5, k=-1) + np.eye(5, k=4)).rounds[0])
)
SETTINGS = [
    (topologies.ring(1), 0.9, False, 1),
    (topologies.pushing([[0, 1, 1], [1, 0, 0], [0, 1, 0]]), 0.0, False, 0),
    (topologies.one_peer_exponential(8), 0.9, True, 0),
    (topologies.one_peer_exponential(8), 0.9, True, 1),
    (UNEVEN, 0.9, False, 0),
    (SWITCHING, 0.0, False, 3),
]
every_setting = pytest.mark.parametrize(
    ("topology", "momentum", "nesterov", "delay"), SETTINGS
)


def weights_of(states, workers: int):
    """The weights of push-sum, [steps + 1, workers], one for all leaves."""
    first, *others = jax.tree.leaves(optax.tree.get(states, "weight"))
    for other in others:
        np.testing.assert_array_equal(first, other)
    return np.broadcast_to(first.reshape(len(first), -1), (len(first), workers))


@functools.cache
def trained(topology, momentum, nesterov, delay):
    """The problem, its rate, points and states of ours, and all of the paper."""
    ours, eta = RATES["cosine" if nesterov or delay else "constant"]
    everyone = problems.quadratics(topology.workers)
    tx = sgp(ours, topology, momentum=momentum, nesterov=nesterov, delay=delay)
    points, states = harness.run(tx, everyone)
    paper = references_gossip.sgp(
        everyone, eta, topology.rounds, momentum, nesterov=nesterov, delay=delay
    )
    return everyone, eta, points.reshape(paper[0].shape), states, paper


@every_setting
def test_it_equals_its_paper(topology, momentum, nesterov, delay):
    _, _, points, states, (expected, weights, _) = trained(
        topology, momentum, nesterov, delay
    )
    np.testing.assert_allclose(points, expected, rtol=0, atol=1e-10)
    if delay or not topology.is_doubly_stochastic:
        ours = weights_of(states, topology.workers)
        np.testing.assert_allclose(ours, weights, rtol=1e-12)


@every_setting
def test_mass_is_conserved_in_flight_too(topology, momentum, nesterov, delay):
    """Of the library's own states: what lies here, and what is still to arrive."""
    if topology.is_doubly_stochastic and not delay:
        pytest.skip("all weights are 1 and not kept")
    n = topology.workers
    everyone, eta, points, states, (_, _, sums) = trained(
        topology, momentum, nesterov, delay
    )
    weights = weights_of(states, n)
    mass, weight = np.einsum("tk,tkd->td", weights, points), weights.sum(axis=1)
    for numerators, ones in optax.tree.get(states, "in_flight"):
        mass += problems.flat(numerators, leading=2).sum(axis=1)
        weight += jax.tree.leaves(ones)[0].reshape(weights.shape).sum(axis=1)
    np.testing.assert_allclose(weight, n, rtol=1e-12)
    np.testing.assert_allclose(mass, sums[:, :-1], rtol=0, atol=1e-10)
    np.testing.assert_allclose(sums[:, -1], n, rtol=1e-12)
    # By the steps of the gradients alone: with a delay, and at worst, to rounding.
    if not momentum:
        moved = [
            -eta(t)
            * np.sum([everyone.gradient(k, t, points[t, k]) for k in range(n)], 0)
            for t in range(everyone.steps)
        ]
        np.testing.assert_allclose(
            np.diff(mass, axis=0), np.stack(moved), rtol=0, atol=1e-11
        )


@pytest.mark.parametrize("delay", [0, 2])
def test_without_gradients_workers_come_to_the_mean(delay):
    """From where each is, which is not the same."""
    channel = gossip(UNEVEN, delay=delay)
    tx = push_sum(channel)
    points = np.random.default_rng(0).normal(size=(5, 20))

    def step(state, start):
        params, opt_state, count = state
        params = jax.tree.map(lambda x, s: jax.numpy.where(count, x, s), params, start)
        nothing = jax.tree.map(jax.numpy.zeros_like, params)
        updates, opt_state = tx.update(nothing, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state, count + 1), 0

    with jax.enable_x64(True):
        params = problems.tree(np.zeros(20))
        starts = jax.vmap(problems.tree)(points)
        batches = jax.tree.map(lambda x: np.stack([x] * 150), starts)
        state = params, tx.init(params), jax.numpy.zeros((), int)
        (states, _, _), _ = harness.history(step, state, batches)
    end = problems.flat(states, leading=2)[-1]
    np.testing.assert_allclose(end, points.mean(axis=0) + 0 * end, atol=1e-9)


def test_on_the_complete_graph_it_is_sgd():
    complete, states = harness.run(sgp(SCHEDULE, topologies.complete(4)), problem())
    sgd = references_gossip.d_psgd(
        problem(), rate_at, topologies.complete(4).rounds, adapt_first=True
    )
    np.testing.assert_allclose(complete, sgd, rtol=0, atol=1e-12)
    assert {leaf.mean() for leaf in jax.tree.leaves(states[-1].weight)} == {1}


@pytest.mark.parametrize(
    ("topology", "delay"), [("even", 0), ("even", 1), ("uneven", 0)]
)
def test_a_message_holds_the_parameters_and_a_weight_a_leaf(topology, delay):
    """No weights where they would all be 1."""
    uneven = topologies.pushing(np.eye(8, k=1) + np.eye(8, k=-1))
    graph = topologies.one_peer_exponential(8) if topology == "even" else uneven
    tx = sgp(RATE, graph, delay=delay)
    params = harness.start()
    state = params, tx.init(params)
    batch = jax.tree.map(lambda b: b[0], harness.targets(params, 1))
    train, state = gmc_jax.distribute(harness.step_of(tx), state, batch)
    words = 20 + 2 * (topology == "uneven" or delay > 0)
    messages = {"even": 1, "uneven": 2}[topology]
    assert wire_bytes(train, state, batch) == 4 * words * messages
    assert message_bits(gossip(graph), params) == 32 * 20 * messages


def test_errors_name_what_is_wrong():
    with pytest.raises(
        ValueError, match=r"positive weights on every diagonal.*`topologies.lazy"
    ):
        sgp(0.1, topologies.ring(4, self_weight=0), delay=1)
    with pytest.raises(ValueError, match=r"contract the disag.*`topologies.lazy"):
        sgp(0.1, topologies.ring(4, self_weight=0))
    with pytest.raises(TypeError, match="`topology` must be a topology"):
        sgp(0.1, cast(Any, np.eye(4)))
    oneway = topologies.pushing([[0, 1], [0, 0]])
    with pytest.raises(ValueError, match=r"must connect .* \[0\] that do not reach"):
        sgp(0.1, oneway)
    with pytest.raises(ValueError, match="columns of its rounds"):
        sgp(0.1, Topology((np.array([[0.5, 0.4], [0.4, 0.5]]),)))
    with pytest.raises(ValueError, match="`delay`"):
        sgp(0.1, topologies.ring(4), delay=cast(Any, 0.5))
    with pytest.raises(ValueError, match="`learning_rate`"):
        sgp(-1, topologies.ring(4))
    tx = push_sum(gossip(UNEVEN))
    with pytest.raises(ValueError, match="`push_sum` computes updates"):
        tx.update(np.ones(2), tx.init(np.ones(2)))
    with pytest.raises(TypeError, match="`channel` must be a channel"):
        push_sum(cast(Any, UNEVEN))
