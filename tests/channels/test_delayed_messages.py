"""Tests of messages that travel a call after the one that encodes them.

What becomes of messages in flight where workers or channels change is in
`test_messages_in_flight`.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import (
    CompressedState,
    all_gather,
    all_reduce,
    averaged,
    count_entries,
    dense,
    dgc,
    dmsgd,
    dmsgd_local,
    ef_sgd,
    gmc,
    join_channels,
    random_block,
    random_k,
    scaled_sign,
    top_k,
)
from gmc_jax.core import Blockwise
from tests.support import harness
from tests.support.compressors import COMPRESSORS, thinned
from tests.support.harness import residual
from tests.support.late import (
    calls_of,
    in_flight,
    mean_in_flight,
    senders_that_wait,
    trees_of_calls,
)
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
