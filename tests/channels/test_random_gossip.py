"""Tests of gossip in matchings that are drawn: its matrix, its draws, what is sent."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import message_bits, random_gossip, topologies, wire_bytes
from tests.support import harness

DRAWN = topologies.matcha(topologies.ring(8).edges, 0.4, seed=2)


def active(step: int) -> np.ndarray:
    """By the documented rule."""
    key = jax.random.fold_in(jax.random.key(2), step)
    draws = jax.random.uniform(key, (len(DRAWN.matchings),), jnp.float32)
    return np.asarray(draws) < np.array(DRAWN.probabilities, np.float32)


@pytest.mark.parametrize("runner", ["simulate", "distribute"])
def test_each_call_draws_the_matrix_of_its_round(runner):
    values = np.random.default_rng(0).normal(size=(12, 8, 5)).astype(np.float32)
    channel = random_gossip(DRAWN)

    def step(state, value):
        mean, lost, state = channel.average(value, state)
        return state, (mean, lost)

    start = channel.init(jnp.zeros(5))
    _, (means, lost) = harness.drive(harness.RUNNERS[runner], step, start, values)
    assert not lost.any()
    drawn = [tuple(active(call)) for call in range(12)]
    assert len(set(drawn)) == 4  # Each matching with and without the other.
    for call, value in enumerate(values):
        expected = DRAWN.matrix(drawn[call]) @ value
        np.testing.assert_allclose(means[call], expected, rtol=1e-5, atol=1e-6)
        if not any(drawn[call]):
            np.testing.assert_array_equal(means[call], value)


def test_only_active_matchings_send():
    """The bits of a method are those of a share of them."""
    channel, params = random_gossip(DRAWN), harness.start()
    assert channel.bits(params) == 2 * 20 * 32
    tx = optax.chain(optax.sgd(0.1), gmc_jax.adapt_then_combine(channel))
    drawn = np.array([active(step) for step in range(20)])
    sent = message_bits(tx, params, steps=20)
    assert sent == drawn.sum() * 20 * 32 / 20
    often = message_bits(tx, params, steps=4000) / (20 * 32)
    assert abs(often - sum(DRAWN.probabilities)) < 4 * (2 / 4 / 4000) ** 0.5


@pytest.mark.slow
def test_a_program_holds_all_matchings_in_conditionals():
    params = harness.start()
    tx = optax.chain(optax.sgd(0.1), gmc_jax.adapt_then_combine(random_gossip(DRAWN)))
    state = params, tx.init(params)
    batch = jax.tree.map(lambda b: b[0], harness.targets(params, 1))
    train, state = gmc_jax.distribute(harness.step_of(tx), state, batch)
    compiled = wire_bytes(train, state, batch)
    assert {operation[0] for operation in compiled.operations} == {"collective-permute"}
    assert compiled == 2 * 20 * 4
    assert compiled.always == 0


def test_errors_name_what_is_wrong():
    with pytest.raises(TypeError, match=r"`topology` must have matchings .* Use"):
        random_gossip(cast(Any, topologies.ring(8)))
    with pytest.raises(ValueError, match="axis 'workers', which has 4, got one of 8"):
        harness.average(random_gossip(DRAWN), np.ones((4, 2), np.float32))
    with pytest.raises(TypeError, match="hold real floats"):
        harness.average(random_gossip(DRAWN), np.ones((8, 2), int))
    channel = random_gossip(DRAWN)
    with pytest.raises(NameError, match="`random_gossip` needs the named axis"):
        channel.average(jnp.ones(2), channel.init(jnp.ones(2)))
