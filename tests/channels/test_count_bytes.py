"""Tests of the count of what a worker sends."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gmc_jax
from gmc_jax import all_gather, count_bytes, exact, gmc, top_k
from gmc_jax.channels._counts import add_to_count
from gmc_jax.utils.trees import find
from tests.support.harness import average, step_of

TREES = {"a": np.linspace(-1, 1, 60, dtype=np.float32).reshape(3, 20)}
ONE = {"a": jnp.zeros(20)}
HALVES = jnp.zeros(20, jnp.bfloat16)


def number(count) -> int:
    high, low = np.asarray(count).astype(np.uint64).tolist()
    return high * 2**32 + low


def test_each_call_adds_the_size_of_its_message():
    channel = all_gather(top_k(0.1))
    mean, lost, state = average(count_bytes(channel), TREES, calls=3)
    assert [number(count) for count in state.sent] == [3 * 2 * 8] * 3
    plain = average(channel, TREES, calls=3)
    chex.assert_trees_all_equal((mean, lost, state.inner), plain)
    assert count_bytes(channel).bits(ONE) == channel.bits(ONE)
    assert count_bytes(channel).entries(ONE) == channel.entries(ONE)


def test_narrow_numbers_count_as_they_travel():
    trees = jnp.ones((2, 20), jnp.bfloat16)
    channel = all_gather(top_k(0.1))
    _, _, state = average(count_bytes(channel), trees)
    assert number(state.sent[0]) == 2 * (4 + 2) == channel.bits(HALVES) // 8


@pytest.mark.parametrize("more", [2**32 - 1, 2**33 + 1, jnp.uint32(5)])
def test_a_count_passes_32_bits(more):
    count = add_to_count(jnp.array([1, 2**32 - 4], jnp.uint32), more)
    assert number(count) == 2**33 - 4 + int(more)


def test_methods_that_send_at_some_steps_count_those():
    """And a resized state keeps the count."""
    tx = gmc_jax.accumulate(gmc(0.1, count_bytes(exact())), 2)
    batch = jax.tree.map(lambda leaf: np.zeros((2, *leaf.shape), "f"), ONE)
    state = ONE, tx.init(ONE)
    train, state = gmc_jax.simulate(step_of(tx), state, batch, workers=2)
    for _ in range(5):
        state, _ = train(state, batch)
    state = gmc_jax.resize(state, train.layout, workers=3)
    (counted,) = find(state, gmc_jax.CountBytesState)
    assert number(counted.sent) == 2 * 80
