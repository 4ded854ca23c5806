"""Tests that nothing in flight is lost where workers, channels or periods change."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import (
    DelayedMessagesState,
    all_gather,
    all_reduce,
    count_entries,
    dense,
    ef_sgd,
    error_feedback,
    join_channels,
    random_block,
    scaled_sign,
    top_k,
)
from gmc_jax.core import Tree
from gmc_jax.utils.trees import find
from tests.support import harness, problems
from tests.support.harness import average, residual
from tests.support.late import calls_of, in_flight, mean_in_flight, trees_of_calls
from tests.support.virtual_iterates import (
    RATE,
    assert_moves_by,
    problem,
)


def steps_of_workers(tx: optax.GradientTransformation, numbers: list[int]):
    """Four steps of each number of workers: points, mean gradients, the last state.

    A point is where the parameters are when all that was held back is received.
    """

    def step(state, batch):
        params, opt_state = state
        grads = jax.tree.map(lambda w, b: w * jnp.abs(b) - b, params, batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), grads

    fresh = harness.start("float64"), tx.init(harness.start("float64"))
    state, layouts, points, gradients = None, [], [], []
    for workers in numbers:
        batches = trees_like(fresh[0], 4, workers)
        train, begun = gmc_jax.simulate(step, fresh, batches[0], workers)
        state = gmc_jax.resize(state, layouts[-1], workers) if layouts else begun
        layouts.append(train.layout)
        for batch in batches:
            points.append(point(state))
            state, grads = train(state, batch)
            gradients.append(problems.flat(grads, leading=1).mean(axis=0))
    points.append(point(state))
    return np.stack(points), np.stack(gradients), state


def trees_like(params: Tree, steps: int, workers: int) -> list[Tree]:
    draw = np.random.default_rng(workers)
    return [
        jax.tree.map(lambda leaf: draw.normal(size=(workers, *leaf.shape)), params)
        for _ in range(steps)
    ]


def point(state: Tree) -> np.ndarray:
    params, opt_state = gmc_jax.fetch(state)
    owed = [
        problems.flat(tree, leading=1).mean(axis=0)
        for tree in (optax.tree.get(opt_state, "residual"), in_flight(opt_state))
    ]
    return problems.flat(params) + owed[0] + owed[1]


@pytest.mark.parametrize(
    "name",
    [
        "signs",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("top_k", "blocks")),
    ],
)
def test_nothing_in_flight_is_lost_when_workers_leave_and_come(name):
    channel = {
        "top_k": count_entries(all_gather(top_k(0.1), per_leaf=True, delay=1)),
        "signs": all_gather(scaled_sign(), delay=1),
        "blocks": all_reduce(random_block(0.1), delay=1),
    }[name]
    with jax.enable_x64(True):
        points, gradients, state = steps_of_workers(ef_sgd(RATE, channel), [8, 3, 5])
    np.testing.assert_allclose(np.diff(points, axis=0), -RATE * gradients, atol=1e-14)
    (late,) = find(state, DelayedMessagesState)
    assert late.encoded


@pytest.mark.slow
def test_resizing_twice_before_a_step_keeps_what_is_in_flight():
    """Messages of eight workers are none of the eight who come later."""
    tx, start = ef_sgd(RATE, all_gather(top_k(0.3), delay=1)), harness.start()
    step, fresh = harness.step_of(tx), (start, tx.init(start))
    batches = {workers: trees_like(start, 1, workers)[0] for workers in (8, 3)}
    train, state = gmc_jax.simulate(step, fresh, batches[8], 8)
    state, _ = train(state, batches[8])
    flying = problems.flat(in_flight(state), leading=1).mean(axis=0)
    assert np.abs(flying).max() > 1e-3

    of_three = gmc_jax.layout(step, fresh, batches[3], 3)
    resized = gmc_jax.resize(state, train.layout, 3)
    resized = gmc_jax.resize(resized, of_three, 8)
    (late,) = find(resized, DelayedMessagesState)
    assert not late.encoded
    assert not np.any(late.messages)
    now = problems.flat(late.in_flight, leading=1)
    np.testing.assert_allclose(now.mean(axis=0), flying, rtol=1e-6)
    (same,) = find(gmc_jax.resize(state, train.layout, 8), DelayedMessagesState)
    assert same.encoded


@pytest.mark.parametrize(
    "dtype",
    [
        "bfloat16",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("float32", "float8_e5m2")
        ),
    ],
)
def test_what_returns_to_its_worker_is_not_rounded_away(dtype):
    """As after `resize`: in flight and no message. 16 bits cannot hold the sum."""
    channel = all_gather(top_k(0.2), per_leaf=True, delay=1)
    trees = jax.tree.map(lambda leaf: leaf[0], trees_of_calls(1, dtype=dtype))
    start = channel.init(jax.tree.map(lambda leaf: leaf[0], trees))
    start = start._replace(
        in_flight=jax.tree.map(lambda leaf: leaf + 1 / 3, start.in_flight)
    )
    mean, lost, state = average(channel, trees, start)
    for leaf, own, flying, arrived in zip(
        *map(jax.tree.leaves, (trees, lost, state.in_flight, mean)), strict=True
    ):
        total = np.asarray(leaf, np.float64) + 1 / 3
        np.testing.assert_allclose(np.float64(own) + flying, total, 0, atol=2e-7)
        assert not np.any(arrived)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrap", "dtype"),
    [
        (count_entries, "bfloat16"),
        (count_entries, "float64"),
        (lambda channel: channel, "float64"),
    ],
    ids=["counted, 16 bits", "counted", "plain"],
)
def test_at_a_boundary_what_is_in_flight_is_sent_by_the_next_channel(wrap, dtype):
    joined = join_channels(
        [
            wrap(all_gather(top_k(0.3), per_leaf=True, delay=1)),
            wrap(all_gather(top_k(0.1), per_leaf=True, delay=1)),
            wrap(all_gather(dense())),
        ],
        boundaries=[2, 4],
    )
    with jax.enable_x64(True):
        trees = trees_of_calls(6, dtype=dtype)
        calls = calls_of(joined, trees)
    states = find(calls.states, DelayedMessagesState)
    rtol = 1e-13 if dtype == "float64" else 1e-6
    for name, leaf in trees.items():
        arrived, lost, sent = (
            np.cumsum(np.asarray(x, np.float64).mean(axis=1), axis=0)
            for x in (calls.means[name], calls.lost[name], leaf)
        )
        flying = np.sum(
            [np.float64(state.in_flight[name]).mean(axis=1) for state in states], axis=0
        )
        np.testing.assert_allclose(
            arrived + lost + flying, sent, rtol=rtol, atol=10 * rtol
        )
        assert not np.any(flying[4:])


@pytest.mark.slow
def test_between_synchronisations_what_is_in_flight_stays():
    """The point that is owed moves by the mean of the local steps."""
    tx = gmc_jax.periodic(
        optax.sgd(RATE),
        optax.chain(
            error_feedback(all_gather(top_k(0.2), per_leaf=True, delay=1)),
            optax.scale(-1),
        ),
        3,
    )
    weights, states = harness.run(tx, problem())
    owed = residual(states).mean(axis=1) + mean_in_flight(states)
    (period,) = find(states, gmc_jax.PeriodicState)
    anchors = problems.flat(period.anchor, leading=1)
    moved = (weights - anchors[:, None]).mean(axis=1)
    gradients = np.stack(
        [
            np.mean(
                [
                    problem().gradient(worker, t, weights[t, worker])
                    for worker in range(4)
                ],
                axis=0,
            )
            for t in range(problem().steps)
        ]
    )
    assert_moves_by(anchors + moved - owed, -RATE * gradients)
    assert np.abs(mean_in_flight(states)).max() > 0.01
