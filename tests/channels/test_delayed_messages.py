"""Tests of messages that travel a call after the one that encodes them."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import (
    Channel,
    CompressedState,
    DelayedMessagesState,
    all_gather,
    all_reduce,
    averaged,
    count_entries,
    dense,
    dgc,
    dmsgd,
    dmsgd_local,
    ef_sgd,
    error_feedback,
    gmc,
    join_channels,
    random_block,
    random_k,
    scaled_sign,
    top_k,
)
from gmc_jax.channels._words import from_words, to_words
from gmc_jax.core import Blockwise, Tree
from gmc_jax.utils.trees import find
from tests.support import harness, problems
from tests.support.compressors import COMPRESSORS, thinned
from tests.support.harness import average, residual
from tests.support.late import senders_that_wait
from tests.support.meshes import mesh_named, on_mesh, trees_of
from tests.support.small_model import distributed, params
from tests.support.virtual_iterates import (
    MOMENTUM,
    RATE,
    RATES,
    SCHEDULE,
    assert_moves_by,
    mean_gradients,
    problem,
    telescoped,
    unruly,
)

CODES = {
    **{name: row.make(0.2) for name, row in COMPRESSORS.items()},
    "thinned": thinned(),
}
MADE = {
    **{name: (all_gather, code, {"per_leaf": True}) for name, code in CODES.items()},
    "unruly": (all_gather, unruly(), {}),
    "top_k of the whole": (all_gather, top_k(0.2), {}),
    "reduced random_k": (all_reduce, random_k(0.2), {}),
    "reduced random_block": (all_reduce, random_block(0.2), {"per_leaf": True}),
}
DEFAULT = {"reduced random_k"}


class Calls(NamedTuple):
    """What some calls returned, each with leading axes of calls and workers."""

    means: Tree
    lost: Tree
    states: Tree


def calls_of(channel: Channel, trees: Tree, state: Tree = None) -> Calls:
    """Averages trees, whose leading axes are calls and workers, one after another."""
    if state is None:
        state = channel.init(jax.tree.map(lambda leaf: leaf[0, 0], trees))

    def everything(trees):
        def call(state, tree):
            mean, lost, state = channel.average(tree, state)
            return state, (mean, lost, state)

        return jax.lax.scan(call, state, trees)[1]

    workers = jax.vmap(everything, in_axes=1, out_axes=1, axis_name="workers")
    return Calls(*jax.tree.map(np.asarray, jax.jit(workers)(trees)))


def trees_of_calls(calls: int = 5, workers: int = 3, dtype: str = "float64") -> Tree:
    draw = np.random.default_rng(0)
    shapes = {"a": (4, 5), "b": (7,), "c": (4, 5), "empty": (0,)}
    return {
        name: draw.normal(size=(calls, workers, *shape)).astype(jnp.dtype(dtype))
        for name, shape in shapes.items()
    }


@pytest.mark.slow
def test_words_hold_every_bit():
    tree = {
        "empty": np.zeros((0, 2), np.float32),
        "flags": np.array([True, False, True]),
        "halves": np.array([[1, -0.0, np.inf]], jnp.bfloat16),
        "narrow": np.arange(5, dtype=np.uint8),
        "float8": np.array([0.5, -2], jnp.float8_e4m3fn),
        "wide": np.array([[1e-300], [np.pi]]),
        "scale": np.float32(3),
        "signs": np.array([2**32 - 1, 7], np.uint32),
    }
    with jax.enable_x64(True):
        like = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, tree))
        words = to_words(tree)
        again = from_words(words, like)
        assert from_words(to_words({}), {}) == {}
    assert words.dtype == jnp.uint32
    chex.assert_trees_all_equal_shapes_and_dtypes(again, like)
    for leaf, other in zip(jax.tree.leaves(tree), jax.tree.leaves(again), strict=True):
        assert leaf.tobytes() == np.asarray(other).tobytes()


def in_flight(states: Tree) -> Tree:
    (state,) = find(states, DelayedMessagesState)
    return state.in_flight


def mean_in_flight(states: Tree) -> np.ndarray:
    """The mean over workers, flat: [steps + 1, d]."""
    return problems.flat(in_flight(states), leading=2).mean(axis=1)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in DEFAULT else pytest.mark.slow)
        for name in MADE
    ],
)
def test_each_mean_comes_one_call_late_and_bit_for_bit(name):
    """With the draws of the call that encoded; what is lost is known at once."""
    make, code, how = MADE[name]
    with jax.enable_x64(True):
        trees = trees_of_calls()
        at_once = calls_of(make(code, seed=3, **how), trees)
        late = calls_of(make(code, seed=3, delay=1, **how), trees)
    for name in trees:
        np.testing.assert_array_equal(late.lost[name], at_once.lost[name])
        np.testing.assert_array_equal(late.means[name][1:], at_once.means[name][:-1])
        assert not late.means[name][0].any()
        flying = in_flight(late.states)[name]
        arrived = np.cumsum(late.means[name].mean(axis=1), axis=0)
        kept = np.cumsum((trees[name] - late.lost[name]).mean(axis=1), axis=0)
        np.testing.assert_allclose(
            arrived + flying.mean(axis=1), kept, rtol=1e-13, atol=1e-13
        )


def test_without_a_delay_the_state_is_as_ever():
    for channel in (all_gather(top_k(0.1), delay=0), all_reduce(random_k(0.1))):
        chex.assert_trees_all_equal(
            channel.init(harness.start()), CompressedState(jnp.zeros((), jnp.int32))
        )


def methods(delay: int) -> dict[str, optax.GradientTransformation]:
    sparse = all_gather(top_k(0.2), per_leaf=True, delay=delay)
    return {
        "top_k": ef_sgd(0.1, sparse),
        "whole": gmc(0.1, all_gather(top_k(0.2), delay=delay)),
        "signs": ef_sgd(0.1, all_gather(scaled_sign(), delay=delay)),
        "a user's": averaged(all_gather(thinned(), delay=delay)),
        "reduced": gmc(0.1, all_reduce(random_block(0.2), delay=delay)),
        "counted": dgc(0.1, count_entries(sparse)),
        "joined": gmc(0.1, join_channels([sparse, sparse], boundaries=[3])),
    }


@pytest.mark.parametrize("name", methods(1))
def test_no_worker_sends_what_depends_on_the_tree_of_the_call(name):
    start = harness.start()
    assert not senders_that_wait(methods(1)[name], start)
    assert senders_that_wait(methods(0)[name], start)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "unruly" else pytest.mark.slow)
        for name in MADE
        if name != "dense"  # It keeps no residual.
    ],
)
def test_less_the_residual_and_what_is_in_flight_it_is_sgd(name):
    """Of any compressor and schedule; ours are in units of steps."""
    make, code, how = MADE[name]
    tx = ef_sgd(SCHEDULE, make(code, delay=1, **how))
    with jax.numpy_dtype_promotion("standard"):  # Schedules of optax mix dtypes.
        weights, states = harness.run(tx, problem())
    moving = mean_in_flight(states)
    paid = weights + residual(states).mean(axis=1) + moving
    assert_moves_by(paid, -RATES * mean_gradients(weights))
    assert np.abs(moving).max() > 0.01


@pytest.mark.slow
def test_the_momentum_of_gmc_is_its_last_output():
    """With what is in flight among the residuals, the identity of `gmc` holds."""
    channel = all_gather(top_k(0.1), delay=1)
    weights, states = harness.run(gmc(RATE, channel, momentum=MOMENTUM), problem())
    owed = residual(states).mean(axis=1) + mean_in_flight(states)
    points = telescoped(weights, RATE * owed)
    assert_moves_by(points, -RATE * mean_gradients(weights))


def growth(tx: optax.GradientTransformation, steps: int = 3000) -> float:
    """By how much steps on a quadratic of curvature 1 grow between two thirds."""

    def worker(_):
        def step(state, _):
            w, opt_state = state
            updates, opt_state = tx.update(w, opt_state, w)
            return (w + updates, opt_state), w

        start = jnp.ones(1)
        return jax.lax.scan(step, (start, tx.init(start)), None, steps)[1]

    path = np.asarray(jax.jit(jax.vmap(worker, axis_name="workers"))(jnp.zeros(2)))
    _, middle, last = np.split(np.abs(path[0, :, 0]), 3)
    return last.max() / middle.max()


LIMITS = {  # Of rate times curvature, by method and delay, at each momentum.
    **{(dmsgd, 0): (2, 3, 3.8), (dmsgd_local, 0): (2, 3, 3.8), (gmc, 0): (2, 3, 3.8)},
    **{(dmsgd, 1): (1, 0.5, 0.1), (dmsgd_local, 1): (1, 0.5, 0.1)},
    (gmc, 1): (1, 0.75, 0.19),
}


@pytest.mark.parametrize(
    ("method", "delay", "momentum", "limit"),
    [
        pytest.param(
            method,
            delay,
            momentum,
            limit,
            marks=() if (delay, momentum) == (1, 0.9) else pytest.mark.slow,
        )
        for (method, delay), limits in LIMITS.items()
        for momentum, limit in zip((0.0, 0.5, 0.9), limits, strict=True)
    ],
)
def test_the_limits_of_the_rate_are_those_of_the_table(method, delay, momentum, limit):
    with jax.enable_x64(True):
        channel = all_gather(dense(), delay=delay)
        below, above = (
            growth(method(factor * limit, channel, momentum=momentum))
            for factor in (0.99, 1.01)
        )
    assert below < 0.9
    assert above > 1.1


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_program_sends_what_it_sends_without_a_delay(dtype):
    for make in (
        lambda delay: all_reduce(random_block(0.2), per_leaf=True, delay=delay),
        lambda delay: all_gather(scaled_sign(), delay=delay),
    ):
        late, at_once = (
            gmc_jax.wire_bytes(*distributed(averaged(make(delay)), dtype))
            for delay in (1, 0)
        )
        assert late == late.always == at_once
        assert late == gmc_jax.message_bits(make(1), params(dtype)) // 8
        kinds = [
            sorted((each.operation, each.bytes) for each in sent.operations)
            for sent in (late, at_once)
        ]
        assert kinds[0] == kinds[1]


# What becomes of what is in flight.


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


# Errors.


@pytest.mark.parametrize("delay", [2, -1, 0.5])
@pytest.mark.parametrize(
    "make",
    [
        lambda **how: all_gather(top_k(0.5), **how),
        lambda **how: all_reduce(random_k(0.5), **how),
    ],
)
def test_a_delay_is_zero_or_one(make, delay):
    with pytest.raises(ValueError, match="`delay`"):
        make(delay=delay)


def test_blocks_of_split_leaves_need_no_delay():
    def halves(key, x):
        del key
        return x / 2, x / 2

    def decode(key, messages, like):
        del key, like
        return messages.sum(axis=0)

    code = gmc_jax.Compressor(halves, decode, selects=Blockwise(1))
    mesh = mesh_named("2 x 4")
    channel = all_gather(code, per_leaf=True, delay=1)
    with pytest.raises(ValueError, match=r"split inside a worker.*`delay=0`"):
        on_mesh(channel, trees_of(2, "float32"), mesh, calls=1)
    on_mesh(all_gather(code, per_leaf=True), trees_of(2, "float32"), mesh, calls=1)
