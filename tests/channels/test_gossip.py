"""Tests of averaging with neighbours: its matrix, its delays, and what it sends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gmc_jax
from gmc_jax import (
    averaged,
    count_entries,
    gossip,
    message_bits,
    topologies,
    wire_bytes,
)
from gmc_jax.graphs.topology import Topology
from tests.support import harness

TOPOLOGIES = {
    "complete": topologies.complete(8),
    "ring": topologies.ring(8),
    "torus": topologies.torus(2, 4),
    "exponential": topologies.exponential(8),
    "one-peer": topologies.one_peer_exponential(8),
    "matchings": topologies.random_matchings(8, rounds=3),
    "pushing": topologies.pushing(np.triu(np.ones((8, 8))) + np.eye(8, k=-1)),
    "apart": Topology((np.eye(8),)),
}
SENT = {  # Messages of the busiest worker.
    "complete": 7,
    "ring": 2,
    "torus": 3,
    "exponential": 3,
    "one-peer": 1,
    "matchings": 1,
    "pushing": 7,
    "apart": 0,
}
every_topology = pytest.mark.parametrize("name", TOPOLOGIES)


def trees(calls: int, workers: int = 8) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(calls, workers, 5)).astype(np.float32)


def run(topology: Topology, values: np.ndarray, delay: int = 0):
    """Means and losses of several calls, [calls, workers, d]."""
    channel = gossip(topology, delay=delay)

    def everything(values):
        state = channel.init(values[0])
        out = []
        for value in values:
            mean, lost, state = channel.average(value, state)
            out.append((mean, lost))
        return jax.tree.map(lambda *x: jnp.stack(x), *out)

    workers = jax.vmap(everything, in_axes=1, out_axes=1, axis_name="workers")
    return jax.tree.map(np.asarray, jax.jit(workers)(values))


@every_topology
def test_means_are_the_rows_of_the_matrix(name):
    topology, values = TOPOLOGIES[name], trees(calls=4)
    means, lost = run(topology, values)
    for call, value in enumerate(values):
        matrix = topology.rounds[call % len(topology.rounds)]
        np.testing.assert_allclose(means[call], matrix @ value, rtol=1e-5, atol=1e-6)
    assert not lost.any()


@pytest.mark.parametrize("delay", [1, 2, 5])
@pytest.mark.parametrize("name", ["ring", "one-peer", "pushing"])
def test_with_a_delay_what_is_given_away_arrives_later(name, delay):
    topology, values = TOPOLOGIES[name], trees(calls=7)
    means, lost = run(topology, values, delay)
    rounds = topology.rounds
    for call, value in enumerate(values):
        own = np.diag(rounds[call % len(rounds)])
        expected, rest = own[:, None] * value, (1 - own)[:, None] * value
        if call >= delay:
            matrix = rounds[(call - delay) % len(rounds)]
            before, kept = values[call - delay], np.diag(np.diag(matrix))
            expected = expected + (matrix - kept) @ before
            rest = rest - (1 - np.diag(matrix))[:, None] * before
        np.testing.assert_allclose(means[call], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(lost[call], rest, rtol=1e-5, atol=1e-6)
    arrived = (values - lost).mean(axis=1)
    np.testing.assert_allclose(means.mean(axis=1), arrived, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:This step trains 8 separate models")
@every_topology
def test_bits_are_those_of_the_busiest_worker(name):
    """And the compiled program sends no more: 20 float32 for each exchange."""
    topology = TOPOLOGIES[name]
    channel = gossip(topology)
    params = harness.start()
    assert message_bits(channel, params) == SENT[name] * 20 * 32
    assert message_bits(count_entries(channel), params) == message_bits(channel, params)
    tx = averaged(channel)
    state = params, tx.init(params)
    batch = jax.tree.map(lambda b: b[0], harness.targets(params, 1))
    train, state = gmc_jax.distribute(harness.step_of(tx), state, batch)
    sent = wire_bytes(train, state, batch)
    assert {operation[0] for operation in sent.operations} <= {"collective-permute"}
    assert sent == 80 * SENT[name]  # of one round; the others are other branches
    assert sent.always == (80 * SENT[name] if len(topology.rounds) == 1 else 0)


@pytest.mark.parametrize("runner", ["simulate", "distribute"])
@pytest.mark.parametrize(("name", "delay"), [("one-peer", 0), ("pushing", 2)])
def test_devices_agree_with_numpy(runner, name, delay):
    topology, values = TOPOLOGIES[name], trees(calls=5)
    channel = gossip(topology, delay=delay)

    def step(state, value):
        mean, _, state = channel.average(value, state)
        return state, mean

    start = channel.init(jnp.zeros(5))
    _, means = harness.drive(harness.RUNNERS[runner], step, start, values)
    np.testing.assert_allclose(means, run(topology, values, delay)[0], rtol=1e-5)


def test_one_who_hears_nobody_keeps_its_bits():
    values = np.array([[[0.1], [0.2], [1 / 3]]], np.float32)
    apart = Topology((np.array([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1.0]]),))
    means, _ = run(apart, values)
    assert means[0, 2] == values[0, 2]
    assert means[0, 0] == means[0, 1] == np.float32(0.15)


def test_sixteen_bits_travel_as_such_and_are_weighed_in_float32():
    values = jnp.asarray(trees(1)[0], jnp.bfloat16)
    mean, lost, _ = harness.average(gossip(TOPOLOGIES["ring"]), values)
    assert mean.dtype == lost.dtype == jnp.float32
    exact = TOPOLOGIES["ring"].rounds[0] @ np.asarray(values, np.float64)
    np.testing.assert_allclose(mean, exact, rtol=1e-6, atol=1e-7)
    assert message_bits(gossip(TOPOLOGIES["ring"]), values[0]) == 2 * 5 * 16


@pytest.mark.parametrize("of", [gossip, gmc_jax.disagreement])
def test_rounds_go_on_where_the_counter_ends(of):
    """Counters that end: one that stays at the largest int32 stays in one round.

    A counter that was restored there goes on as well.
    """
    topology, value = TOPOLOGIES["one-peer"], trees(1)[0]
    channel = of(topology)

    def calls(value, step):
        def call(state, _):
            mean, _, state = channel.average(value, state)
            return state, mean

        start = channel.init(value)._replace(step=step)
        return jax.lax.scan(call, start, length=4)[1]

    workers = jax.vmap(calls, in_axes=(0, None), axis_name="workers")
    run = jax.jit(workers)
    for late in (2**31 - 4, 2**31 - 1):
        means = run(value, jnp.int32(late))
        np.testing.assert_array_equal(means, run(value, jnp.int32(late % 3)))
        assert np.ptp(means, axis=1).min() > 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8_e5m2"])
def test_what_is_in_flight_is_what_was_given_away(dtype):
    """State that says too little: here and in flight add up, without the topology."""
    values = jnp.asarray(trees(1)[0], dtype)
    channel = gossip(TOPOLOGIES["pushing"], delay=2)
    mean, lost, state = harness.average(channel, values, calls=3)
    flying = np.sum([np.asarray(tree, np.float64) for tree in state.in_flight], axis=0)
    assert {str(tree.dtype) for tree in state.in_flight} == {dtype}
    _, _, before = harness.average(channel, values, calls=2)
    flown = np.sum([np.asarray(tree, np.float64) for tree in before.in_flight], axis=0)
    np.testing.assert_allclose(lost, flying - flown, atol=1e-6)
    total = np.asarray(mean, np.float64).sum(axis=0) + flying.sum(axis=0)
    expected = np.asarray(values, np.float64).sum(axis=0) + flown.sum(axis=0)
    np.testing.assert_allclose(total, expected, rtol=1e-6, atol=1e-6)


def test_what_is_in_flight_comes_back_where_nobody_hears():
    """As after a change to one worker."""
    channel = gossip(topologies.ring(1), delay=1)
    state = channel.init(jnp.zeros(2))._replace(in_flight=(jnp.ones((1, 2)),))

    def call(tree, flying):
        return channel.average(tree, state._replace(in_flight=(flying,)))

    mean, lost, _ = jax.vmap(call, axis_name="workers")(
        jnp.full((1, 2), 3.0), state.in_flight[0]
    )
    np.testing.assert_array_equal(mean, 4)
    np.testing.assert_array_equal(lost, -1)


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"columns .* sum to 1, got \[\[1.1, 0.9\]\]"):
        gossip(Topology((np.array([[0.6, 0.4], [0.5, 0.5]]),)))
    with pytest.raises(ValueError, match="`delay`"):
        gossip(TOPOLOGIES["ring"], delay=-1)
    with pytest.raises(ValueError, match="axis 'workers', which has 4, got one of 8"):
        run(TOPOLOGIES["ring"], trees(1, workers=4))
    channel = gossip(TOPOLOGIES["ring"])
    with pytest.raises(NameError, match="`gossip` needs the named axis"):
        channel.average(jnp.ones(2), channel.init(jnp.ones(2)))
    with pytest.raises(TypeError, match="hold real floats"):
        harness.average(gossip(TOPOLOGIES["ring"]), np.ones((8, 2), int))


def test_what_is_no_number_stays_among_neighbours():
    """Messages without a weight fill up rounds; what they carry does not count."""
    topology, values = TOPOLOGIES["pushing"], trees(calls=1)
    values[0, 0] = np.nan
    means, _ = run(topology, values)
    reached = np.isnan(means[0]).all(axis=1)
    np.testing.assert_array_equal(reached, topology.rounds[0][:, 0] > 0)
    assert np.isfinite(means[0][~reached]).all()
    assert not reached.all()


def test_bits_are_those_of_the_busiest_round():
    both = Topology((np.eye(8), topologies.ring(8).rounds[0]))
    assert gossip(both).bits(np.zeros(5, np.float32)) == 2 * 32 * 5
