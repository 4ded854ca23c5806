"""Tests of error reset: its invariants, its special cases, and its cost."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import (
    all_gather,
    all_reduce,
    averaged,
    count_entries,
    cser,
    drop_all,
    evaluate,
    exact,
    message_bits,
    random_block,
    relative_cost,
    top_k,
    wire_bytes,
)
from tests.support import harness, problems, references
from tests.support.harness import residual
from tests.support.virtual_iterates import (
    MOMENTUM,
    RATE,
    SCHEDULE,
    problem,
    rate_at,
    unruly,
)

PERIOD = 4
CHANNELS = {
    "top_k": (all_gather(top_k(0.1)), all_gather(top_k(0.3))),
    "random_block": (
        all_reduce(random_block(0.15)),
        all_reduce(random_block(0.4), seed=1),
    ),
    "unruly": (all_gather(unruly()), all_gather(top_k(0.3))),
}


@functools.cache
def trained(name: str, nesterov: bool = False):
    """Weights and errors, [steps + 1, workers, d]."""
    tx = cser(SCHEDULE, *CHANNELS[name], period=PERIOD, nesterov=nesterov)
    weights, states = harness.run(tx, problem())
    return weights, residual(states, "error")


@pytest.mark.parametrize("name", CHANNELS)
def test_x_less_e_is_the_same_on_all_workers(name):
    weights, errors = trained(name)
    points = weights - errors
    size = np.abs(weights).max()
    np.testing.assert_allclose(
        points, points[:, :1].repeat(4, axis=1), rtol=0, atol=1e-15 * size
    )
    assert np.ptp(weights[-1], axis=0).max() > 1e-3 * size


@pytest.mark.parametrize(
    ("name", "nesterov"), [*itertools.product(CHANNELS, [False]), ("top_k", True)]
)
def test_the_mean_moves_as_momentum_sgd_without_compression(name, nesterov):
    """With gradients taken where each worker is."""
    weights, errors = trained(name, nesterov)
    momentum = np.zeros_like(weights[0])
    steps = []
    for t, rate in enumerate(map(rate_at, range(problem().steps))):
        gradients = np.stack(
            [problem().gradient(k, t, weights[t, k]) for k in range(4)]
        )
        momentum = MOMENTUM * momentum + gradients
        moved = MOMENTUM * momentum + gradients if nesterov else momentum
        steps.append(-rate * moved.mean(axis=0))
    means = weights.mean(axis=1)
    size = np.abs(means).max()
    np.testing.assert_allclose(np.diff(means, axis=0), steps, rtol=0, atol=1e-13 * size)
    assert np.abs(errors).max() > 0.01


def test_errors_are_the_papers():
    _, errors = trained("top_k")
    _, expected = references.cser(
        problem(),
        rate_at,
        references.largest(0.1),
        reset=references.largest(0.3),
        period=PERIOD,
    )
    np.testing.assert_allclose(errors, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("nesterov", [False, True])
def test_without_loss_it_is_momentum_sgd_and_has_no_errors(nesterov):
    tx = cser(SCHEDULE, exact(), CHANNELS["top_k"][1], period=3, nesterov=nesterov)
    ours, states = harness.run(tx, problem())
    sgd = optax.chain(
        averaged(exact()), optax.sgd(SCHEDULE, MOMENTUM, nesterov=nesterov)
    )
    theirs, _ = harness.run(sgd, problem())
    # The layout proves that nothing differs, so both are kept once.
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)
    assert not np.any(problems.flat(optax.tree.get(states, "error"), leading=1))


def local_sgd(average) -> np.ndarray:
    """Each worker alone; `average(round, [workers, d])` after every period."""
    x = np.stack([problem().start] * 4)
    momentum, weights = np.zeros_like(x), [x]
    for t in range(problem().steps):
        gradients = [problem().gradient(k, t, x[k]) for k in range(4)]
        momentum = MOMENTUM * momentum + gradients
        x = x - RATE * momentum
        if (t + 1) % PERIOD == 0:
            x = average(t // PERIOD, x)
        weights.append(x)
    return np.stack(weights)


def test_of_dense_resets_alone_it_is_local_sgd():
    tx = cser(RATE, drop_all(), exact(), period=PERIOD)
    ours, _ = harness.run(tx, problem())
    expected = local_sgd(lambda _, x: np.stack([x.mean(axis=0)] * 4))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-11)


@pytest.mark.slow
def test_of_resets_of_blocks_alone_it_is_partial_local_sgd():
    """Blocks of the parameters themselves are averaged, for they differ by errors."""
    block = random_block(0.4)
    tx = cser(RATE, drop_all(), all_reduce(block, seed=3), period=PERIOD)
    ours, _ = harness.run(tx, problem())

    def average(count, x):
        key = jax.random.fold_in(jax.random.key(3), count)
        chosen = np.asarray(block.encode(key, jnp.ones(20))[1]) == 0
        return np.where(chosen, x.mean(axis=0), x)

    np.testing.assert_allclose(ours, local_sgd(average), rtol=0, atol=1e-11)


def test_csea_assimilates_errors_at_every_step():
    """What is sent of them is averaged; the rest is the error from then on."""
    tx = cser(RATE, drop_all(), all_gather(top_k(0.3)), period=1)
    ours, states = harness.run(tx, problem())
    expected, errors = references.cser(
        problem(),
        lambda t: RATE,
        lambda step, vector: np.zeros(vector.size, bool),
        reset=references.largest(0.3),
        period=1,
    )
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-11)
    np.testing.assert_allclose(residual(states, "error"), errors, rtol=0, atol=1e-11)
    assert ((errors[1:] == 0).sum(axis=2) == 6).all()


# What it costs, and where it is evaluated.


def test_a_step_sends_the_channels_bytes_and_a_reset_more():
    channel, reset_channel = CHANNELS["random_block"]
    tx = cser(RATE, channel, reset_channel, period=PERIOD)
    params = harness.start()
    batch = jax.tree.map(lambda b: b[0], harness.targets(params, 1))
    state = params, tx.init(params)
    train, state = gmc_jax.distribute(harness.step_of(tx), state, batch)
    sent = wire_bytes(train, state, batch)
    assert sent.always == message_bits(channel, params) // 8 == 4 * 3
    assert sent == sent.always + message_bits(reset_channel, params) // 8 == 4 * (3 + 8)
    assert {operation[:3] for operation in sent.operations} == {
        ("all-reduce", 12, False),
        ("all-reduce", 32, True),
    }


@pytest.mark.parametrize("runner", ["simulate", "distribute"])
def test_the_relative_cost_of_blocks_is_the_sum_of_both(runner):
    """1 / R2 + 1 / (R1 period), and 1 / period of local SGD."""

    def cost(channel, reset_channel):
        tx = cser(
            RATE,
            count_entries(channel),
            count_entries(reset_channel, extra=True),
            period=PERIOD,
        )
        params = harness.start()
        state, _ = harness.drive(
            harness.RUNNERS[runner],
            harness.step_of(tx),
            (params, tx.init(params)),
            harness.targets(params, 2 * PERIOD),
        )
        return relative_cost(state)

    blocks = CHANNELS["random_block"]
    assert cost(*blocks) == pytest.approx(3 / 20 + 8 / 20 / PERIOD, rel=1e-15)
    assert cost(drop_all(), exact()) == 1 / PERIOD


def test_the_model_is_judged_at_the_mean_of_the_parameters():
    tx = cser(RATE, *CHANNELS["random_block"], period=PERIOD)
    params = harness.start()
    state = params, tx.init(params)
    batches = harness.targets(params, 3)
    step, batch = harness.step_of(tx), jax.tree.map(lambda b: b[0], batches)
    plan = gmc_jax.layout(step, state, batch, harness.WORKERS)
    (weights, opt_state), _ = harness.drive(harness.simulate, step, state, batches)
    evaluated = evaluate(opt_state, weights, plan)
    harness.close(evaluated, jax.tree.map(lambda x: x.mean(axis=0), weights))
    assert np.ptp(weights["bias"], axis=0).max() > 1e-3


def test_parameters_differ_so_they_are_not_replicated():
    tx = cser(RATE, *CHANNELS["random_block"], period=PERIOD)
    with pytest.raises(ValueError, match="meant to differ"):
        harness.train(harness.simulate, tx, harness.targets(harness.start(), 1))


@pytest.mark.parametrize("period", [0, 2.5])
def test_a_period_is_a_whole_number(period):
    with pytest.raises(ValueError, match="`period`"):
        cser(RATE, exact(), exact(), period=period)
