"""Tests of partial synchronisation: means, anchors, precision, traffic."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import (
    all_gather,
    all_reduce,
    drop_all,
    exact,
    message_bits,
    partial_sync,
    random_block,
    top_k,
    wire_bytes,
)
from tests.support import harness, problems
from tests.support.virtual_iterates import unruly

WORKERS, D = 4, 20
CHANNELS = {
    "top_k": (all_gather(top_k(0.1)), all_gather(top_k(0.3))),
    "random_block": (
        all_reduce(random_block(0.1)),
        all_reduce(random_block(0.3), seed=1),
    ),
    "unruly": (all_gather(unruly()), all_gather(unruly())),
    "resets alone": (drop_all(), all_gather(top_k(0.3))),
}


def moves(steps: int, dtype: str = "float32"):
    """Updates of all workers, trees of [steps, workers, ...]."""
    draw = np.random.default_rng(0)
    return {
        "bias": draw.normal(size=(steps, WORKERS, 4)).astype(dtype),
        "kernel": draw.normal(size=(steps, WORKERS, 2, 8)).astype(dtype),
    }


def start(dtype: str = "float32"):
    return problems.tree(np.linspace(-2, 2, D).astype(dtype))


@functools.cache
def walked(name: str, period: int, steps: int, dtype: str):
    """Parameters, anchors and errors, [steps + 1, workers, d] (anchors without)."""
    tx = partial_sync(*CHANNELS[name], period)

    def step(state, batch):
        params, opt_state = state
        updates, opt_state = tx.update(batch, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    with jax.enable_x64(dtype == "float64"):
        params = start(dtype)
        batches = jax.tree.map(lambda x: 0.01 * x, moves(steps, dtype))
        (x, state), _ = harness.history(step, (params, tx.init(params)), batches)
    return (
        problems.flat(x, leading=2).astype(np.float64),
        problems.flat(state.anchor, leading=1),
        problems.flat(state.error, leading=2),
    )


@pytest.mark.parametrize("name", CHANNELS)
def test_the_mean_moves_by_the_mean_update_for_any_channels(name):
    """Entries that leave an error enter the anchor."""
    x, anchor, error = walked(name, 3, 12, "float64")
    expected = problems.flat(moves(12, "float64"), leading=2).mean(axis=1) * 0.01
    size = np.abs(x).max() + np.abs(error).max()
    means = x.mean(axis=1)
    np.testing.assert_allclose(
        np.diff(means, axis=0), expected, rtol=0, atol=1e-14 * size
    )
    np.testing.assert_allclose(x, anchor[:, None] + error, rtol=0, atol=1e-15 * size)
    # Workers do differ, and errors are not forgotten by the resets.
    assert np.abs(np.diff(x, axis=1)).max() > 0.01
    assert np.abs(error).max() > 0.01


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_after_a_thousand_steps_workers_agree_to_two_roundings(dtype):
    """They share one anchor, and parameters differ from its sum by rounding only."""
    x, anchor, error = walked("random_block", 8, 1000, dtype)
    assert anchor.dtype == error.dtype == np.float32
    expected = anchor[:, None].astype(np.float64) + error
    rounding = float(jnp.finfo(dtype).eps) / 2
    size = np.maximum(np.abs(expected), np.abs(x))
    size = np.maximum(size, np.concatenate([size[:1], size[:-1]]))
    assert (np.abs(x - expected) <= 2 * rounding * size).all()
    assert np.abs(x[-1] - x[0]).max() > 0.5
    # Taken from the parameters, x_k - e_k agrees between workers accordingly.
    differences = x - error
    gap = differences.max(axis=1) - differences.min(axis=1)
    assert (gap <= 4 * rounding * size.max(axis=1)).all()


def test_steps_too_small_for_16_bits_are_not_lost():
    """2^-12 is an eighth of the smallest step that moves 1 in bfloat16."""
    tx = partial_sync(exact(), exact(), 1)
    params = {"bias": jnp.ones(4, "bfloat16"), "kernel": jnp.ones((2, 8), "bfloat16")}
    steps = jax.tree.map(lambda x: 0 * x + 2**-12, moves(64))
    _, states = harness.updates(tx, params, steps)
    np.testing.assert_allclose(states.anchor["bias"][-1], 1 + 64 * 2**-12)
    out, _ = harness.updates(tx, params, steps)
    assert out["bias"].dtype == np.float32
    assert np.any(out["bias"][16:] >= 2**-8)


def test_rounding_of_messages_to_16_bits_stays_in_the_error():
    tx = partial_sync(exact(), exact(), 100)
    params = jax.tree.map(lambda x: x.astype("bfloat16"), start())
    _, states = harness.updates(tx, params, moves(10))
    total = problems.flat(states.error, leading=2).mean(axis=1) + problems.flat(
        states.anchor, leading=1
    )
    expected = problems.flat(moves(10), leading=2).mean(axis=1).cumsum(axis=0)
    np.testing.assert_allclose(total[1:] - total[0], expected, rtol=0, atol=1e-5)
    assert np.any(states.error["bias"])


def test_errors_are_reset_after_every_period():
    tx = partial_sync(drop_all(), exact(), 3)
    _, states = harness.updates(tx, start(), moves(7))
    np.testing.assert_array_equal(states.step, [0, 1, 2, 0, 1, 2, 0, 1])
    clear = [not np.any(error) for error in states.error["kernel"]]
    assert clear == [True, False, False] * 2 + [True, False]


def test_each_channel_counts_its_own_calls():
    tx = partial_sync(*CHANNELS["random_block"], 3)
    _, states = harness.updates(tx, start(), moves(7))
    np.testing.assert_array_equal(states.channel.step, range(8))
    np.testing.assert_array_equal(states.reset_channel.step, [0, 0, 0, 1, 1, 1, 2, 2])


@pytest.mark.parametrize("name", CHANNELS)
def test_steps_in_between_send_nothing_of_the_reset(name):
    channel, reset_channel = CHANNELS[name]
    tx = partial_sync(channel, reset_channel, 3)
    batch = jax.tree.map(lambda b: b[0], harness.targets(start(), 1))
    state = start(), tx.init(start())
    train, state = gmc_jax.distribute(harness.step_of(tx), state, batch)
    sent = wire_bytes(train, state, batch)
    always = message_bits(channel, start()) // 8
    reset = message_bits(reset_channel, start()) // 8
    assert (sent, sent.always) == (always + reset, always)
    assert reset > 0


def test_other_changes_of_the_parameters_are_undone():
    tx = partial_sync(exact(), exact(), 2)

    def step(state, batch):
        params, opt_state = state
        updates, opt_state = tx.update(batch, opt_state, params)
        params = optax.apply_updates(params, updates)
        return (jax.tree.map(lambda x: x + 1, params), opt_state), None

    state = start(), tx.init(start())
    (params, state), _ = harness.history(step, state, moves(5))
    expected = jax.tree.map(lambda z: z[-1] + 1, state.anchor)
    np.testing.assert_allclose(params["bias"][-1], expected["bias"], rtol=1e-6)


def test_parameters_are_needed():
    tx = partial_sync(exact(), exact(), 2)
    with pytest.raises(ValueError, match=r"`tx.update\(grads, opt_state, params\)`"):
        tx.update(start(), tx.init(start()))


@pytest.mark.parametrize("period", [0, -1, 1.5])
def test_a_period_is_at_least_1(period):
    with pytest.raises(ValueError, match="`period`"):
        partial_sync(exact(), exact(), period)


def test_the_anchor_is_a_copy_of_the_parameters():
    """A custom loop may donate both."""
    tx = partial_sync(exact(), exact(), 2)
    params = start()
    anchor = optax.tree.get(tx.init(params), "anchor")["bias"]
    assert anchor.unsafe_buffer_pointer() != params["bias"].unsafe_buffer_pointer()
    np.testing.assert_array_equal(anchor, params["bias"])
