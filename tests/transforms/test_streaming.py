"""Tests of synchronising fragments: which, when, and what is in flight meanwhile."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import (
    averaged,
    corrected,
    eager,
    error_feedback,
    exact,
    global_momentum,
    gmc,
    mix,
    periodic,
    push_sum,
    streaming,
    topologies,
)
from gmc_jax.core import Tree
from gmc_jax.transforms._fragments import divide
from tests.support import harness, problems
from tests.support.late import senders_that_wait
from tests.support.methods import BLOCK, TOP, by_name
from tests.support.virtual_iterates import RATE, assert_moves_by, problem

MEAN, BACK = averaged(exact()), optax.scale(-1.0)


def in_two(inner, average=MEAN, outer=BACK, **options):
    """Two fragments, each of which synchronises every five steps."""
    return streaming(inner, average, outer, 5, fragments=by_name, **options)


# Which leaves synchronise together, and when.


def numbers(tree: Tree, fragments: Any = None) -> tuple[int, ...]:
    return divide(tree, fragments, 100).numbers


def test_layers_are_where_the_tree_first_branches():
    layer = {"kernel": 0, "bias": {"inside": 0}}
    blocks = {"block_0": layer, "block_1": layer, "head": 0, "tail": 0}
    assert numbers({"params": {"model": blocks}}) == (0, 0, 1, 1, 2, 2)
    assert numbers([(0, 0), (0, 0), (0,)]) == (0, 0, 1, 1, 2)
    assert numbers(layer) == (0, 1)
    assert numbers({"kernel": 0, "bias": 0}) == numbers({"a": {"b": [0, 0]}}) == (0, 0)
    assert numbers(0) == (0,)
    assert numbers({}) == ()


def test_layers_are_dealt_in_turn_and_functions_see_paths():
    layers = [{"kernel": 0}] * 5
    assert numbers(layers, 2) == (0, 1, 0, 1, 0)
    assert numbers(layers, 5) == (0, 1, 2, 3, 4)
    paths = []
    chosen = numbers(layers, lambda path: paths.append(path) or 7 - int(path[0]) // 2)
    assert paths == [f"{layer}/kernel" for layer in range(5)]
    assert chosen == (2, 2, 1, 1, 0)


@pytest.mark.parametrize(("count", "period"), [(1, 1), (1, 7), (3, 3), (3, 7), (3, 12)])
def test_each_fragment_is_due_once_a_period_in_order_and_at_equal_distances(
    count, period
):
    division = divide([0] * count, int, period)
    due = [int(division.due(jnp.int32(t), period)) for t in range(-2, 3 * period + 1)]
    assert due[:3] == [0, 0, 0]
    due = due[3:]
    assert due[:period] * 3 == due
    at = [due.index(number) + 1 for number in range(1, count + 1)]
    assert at == [-(-number * period // count) for number in range(1, count + 1)]
    assert at[-1] == period
    assert sorted(due[:period]) == [0] * (period - count) + list(range(1, count + 1))


def test_the_counter_goes_on_in_whole_periods():
    """And nothing is taken in before it was sent."""
    _, states = harness.run(in_two(optax.sgd(RATE), delay=4), problem())
    np.testing.assert_array_equal(states.step[:11], range(11))
    np.testing.assert_array_equal(states.step[11:21], [*range(6, 11)] * 2)
    anchors = problems.flat(states.anchor, leading=1)
    moved = np.diff(anchors, axis=0) != 0
    np.testing.assert_array_equal(np.flatnonzero(moved[:, 0]) + 1, range(7, 51, 5))
    np.testing.assert_array_equal(np.flatnonzero(moved[:, -1]) + 1, range(9, 51, 5))


# What workers take in.


@pytest.mark.slow
def test_with_all_weight_on_their_own_workers_receive_nothing():
    tx = in_two(optax.sgd(RATE, 0.9), delay=2, merge=mix(1.0))
    alone = optax.chain(optax.sgd(RATE, 0.9), averaged(gmc_jax.no_communication()))
    ours, _ = harness.run(tx, problem())
    theirs, _ = harness.run(alone, problem())
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-13)


SGD = optax.sgd(RATE)
FOLLOWING = {
    "late": in_two(SGD, delay=3, merge=corrected()),
    "inside a period": periodic(
        in_two(SGD, delay=4, merge=corrected()), optax.chain(MEAN, BACK), 6
    ),
    "at once": in_two(SGD, merge=corrected()),
    "a period late": in_two(SGD, delay=5, merge=corrected()),
    "over periods": in_two(periodic(SGD, optax.chain(MEAN, BACK), 3)),
    "over periods, late": in_two(
        periodic(SGD, optax.chain(MEAN, BACK), 3), delay=2, merge=corrected()
    ),
    "over cser": in_two(
        optax.chain(SGD, gmc_jax.partial_sync(BLOCK, exact(), 3)),
        delay=2,
        merge=corrected(),
    ),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if place < 2 else pytest.mark.slow)
        for place, name in enumerate(FOLLOWING)
    ],
)
def test_the_mean_follows_the_sum_of_all_steps(name):
    """Through any delay: nothing in flight is lost, and nothing counts twice."""
    weights, states = harness.run(FOLLOWING[name], problem())
    gradients = [
        [problem().gradient(k, t, weights[t, k]) for k in range(4)] for t in range(50)
    ]
    mean = np.mean(gradients, axis=1)
    assert_moves_by(weights.mean(axis=1), -RATE * mean)
    assert np.ptp(weights[-2], axis=0).max() > 1e-3
    if name == "inside a period":  # Its sync at step 6 holds what arrives in 7 and 9.
        outer = problems.flat(states.anchor, leading=1)[6]
        inner = problems.flat(states.inner.anchor, leading=1)[6:10]
        assert np.any(problems.flat(states.anchor, leading=1)[5] != outer)
        np.testing.assert_allclose(inner, [outer] * 4, rtol=0, atol=1e-14)
    if name == "over cser":  # Its own anchor has not moved, and the errors have.
        sync = states.inner[1]
        anchor = problems.flat(sync.anchor, leading=1)[:, None]
        error = problems.flat(sync.error, leading=2)
        np.testing.assert_allclose(weights - error, anchor + 0 * error, atol=1e-12)
    if name == "over periods":  # Its anchor is still the same on all workers.
        assert problems.flat(states.inner.anchor, leading=1).shape == (51, 20)


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0, 1])
def test_over_push_sum_the_weighted_mean_follows_the_steps(delay):
    """The weights of one fragment start anew, with its messages in flight."""
    pushing = push_sum(
        gmc_jax.gossip(
            topologies.pushing(np.eye(4)[[1, 2, 3, 0]] + np.eye(4)[[2, 2, 0, 1]]),
            delay=delay,
        )
    )
    weights, states = harness.run(in_two(optax.chain(SGD, pushing)), problem())
    sums = states.inner[1]
    own = np.concatenate(
        [
            np.repeat(sums.weight[name][..., None], size, axis=-1)
            for name, size in (("bias", 4), ("kernel", 16))
        ],
        axis=-1,
    )
    mass = (own * weights).sum(axis=1)
    for values, _ in sums.channel.in_flight:
        mass += problems.flat(values, leading=2).sum(axis=1)
    gradients = [
        [problem().gradient(k, t, weights[t, k]) for k in range(4)] for t in range(50)
    ]
    assert_moves_by(mass, -RATE * np.sum(gradients, axis=1))


@pytest.mark.slow
def test_gmc_between_synchronisations_of_fragments():
    """With one fragment, `periodic` with `gmc` as the outer optimizer."""
    theirs, _ = harness.run(periodic(SGD, gmc(1.0, TOP, momentum=0.5), 5), problem())
    average = global_momentum(error_feedback(TOP), 0.5)
    ours, _ = harness.run(streaming(SGD, average, BACK, 5, fragments=1), problem())
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0, 3])
def test_with_error_feedback_residuals_hold_what_is_not_sent(delay):
    """Anchor minus mean residual moves by the mean of what was sent from."""
    tx = in_two(SGD, error_feedback(TOP), delay=delay, merge=corrected())
    weights, states = harness.run(tx, problem())
    gradients = [
        [problem().gradient(k, t, weights[t, k]) for k in range(4)] for t in range(50)
    ]
    residual = np.concatenate(
        [
            problems.flat(outer[0].residual, leading=2).mean(axis=1)
            for outer in states.outer
        ],
        axis=-1,
    )
    assert np.abs(residual).max() > 0.01
    # Workers take in the anchor's step and their own pseudo-gradient.
    assert_moves_by(weights.mean(axis=1) - residual, -RATE * np.mean(gradients, axis=1))


# What is in flight.


@pytest.mark.parametrize("merge", [mix(0.5), corrected(), eager()], ids=repr)
def test_with_a_delay_no_step_waits_for_what_it_sends(merge):
    """No operand of a collective depends on gradients or parameters of this step."""
    params = harness.start()
    late = in_two(optax.adam(0.1), delay=3, merge=merge)
    assert senders_that_wait(late, params) == []
    assert senders_that_wait(in_two(optax.adam(0.1)), params) == ["psum"] * 2


def runner_of(tx, workers: int) -> tuple[gmc_jax.Train, Tree]:
    """The step of some workers, and where they begin."""
    params = harness.start()
    batch = jax.tree.map(lambda leaf: leaf[0, :workers], harness.targets(params, 1))
    return gmc_jax.simulate(
        harness.step_of(tx), (params, tx.init(params)), batch, workers
    )


def without_steps(train: gmc_jax.Train, state: Tree) -> np.ndarray:
    """The mean parameters after two periods in which all gradients are 0."""
    for _ in range(10):
        state, _ = train(state, jax.tree.map(np.array, state[0]))
    return problems.flat(state[0], leading=1).mean(axis=0)


@pytest.mark.parametrize(
    "merge",
    [
        eager(),
        pytest.param(mix(0.5), marks=pytest.mark.slow),
        pytest.param(corrected(), marks=pytest.mark.slow),
    ],
    ids=repr,
)
def test_what_is_in_flight_survives_another_number_of_workers(merge):
    """Where nobody takes further steps, all means end where they would have.

    Messages of both fragments are under way: they left after 13 and 15 steps.
    """
    tx = in_two(SGD, outer=optax.scale(-0.7), delay=4, merge=merge)
    train, state = runner_of(tx, 8)
    batches = harness.targets(harness.start(), 16)
    for t in range(16):
        state, _ = train(state, jax.tree.map(lambda leaf, t=t: leaf[t], batches))
    before = problems.flat(state[0], leading=1).mean(axis=0)
    resized = gmc_jax.resize(state, train.layout, 3)
    expected = without_steps(train, state)
    assert np.abs(expected - before).max() > 1e-3
    now = without_steps(runner_of(tx, 3)[0], resized)
    np.testing.assert_allclose(now, expected, atol=2e-6)


# What is refused.


def test_errors_name_what_is_wrong():
    two = {"layer_0": {"a": jnp.ones(2)}, "layer_1": {"a": jnp.ones(2)}}
    with pytest.raises(ValueError, match="`period` must be a whole number"):
        streaming(SGD, MEAN, BACK, 0)
    with pytest.raises(ValueError, match="`delay` must be at most `period`, 5, got 6"):
        in_two(SGD, delay=6)
    with pytest.raises(ValueError, match=r"`period` must be .* fragments, 2"):
        streaming(SGD, MEAN, BACK, 1).init(two)
    with pytest.raises(ValueError, match=r"`fragments` must be .* layers, 2"):
        streaming(SGD, MEAN, BACK, 5, fragments=3).init(two)
    with pytest.raises(ValueError, match=r"`fragments\('layer_0/a'\)` must be a whole"):
        streaming(SGD, MEAN, BACK, 5, fragments=lambda path: -1).init(two)
    pushing = gmc_jax.sgp(0.1, topologies.ring(3))
    with pytest.raises(ValueError, match="`delay` must be 0 for an `inner`"):
        streaming(pushing, MEAN, BACK, 5, delay=1).init(two)
    with pytest.raises(TypeError, match="`merge` must be a strategy"):
        streaming(SGD, MEAN, BACK, 5, merge=cast(Any, mix))
    tx = in_two(SGD)
    with pytest.raises(ValueError, match="`params` must be given"):
        tx.update(np.ones(2), tx.init(np.ones(2)))
