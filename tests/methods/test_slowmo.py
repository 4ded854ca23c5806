"""Tests of SlowMo: what it contains, on every inner method, with every strategy."""

import functools
import itertools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import (
    average_buffers,
    averaged,
    bmuf,
    d2,
    d_psgd,
    dmsgd,
    exact,
    gmc,
    local_sgd,
    lookahead,
    maintain_buffers,
    no_communication,
    periodic,
    reset_buffers,
    sgp,
    slowmo,
    topologies,
    wire_bytes,
)
from gmc_jax.utils.trees import find
from tests.support import (
    harness,
    problems,
    references,
    references_gossip,
    references_local,
)
from tests.support.virtual_iterates import RATE, SCHEDULE, problem, rate_at

same = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-12)
BUFFERS = {
    "maintain": maintain_buffers,
    "reset": reset_buffers,
    "average": lambda: average_buffers(exact()),
}
INNER = {
    "local_sgd": lambda: optax.sgd(SCHEDULE, 0.9, nesterov=True),
    "local adam": lambda: optax.adam(SCHEDULE),
    "sgp": lambda: sgp(SCHEDULE, topologies.one_peer_exponential(4), momentum=0.9),
    "uneven sgp": lambda: sgp(
        SCHEDULE, topologies.pushing(np.triu(np.ones((4, 4))) + np.eye(4, k=-1))
    ),
    "osgp": lambda: sgp(SCHEDULE, topologies.ring(4), momentum=0.9, delay=2),
    "d_psgd": lambda: d_psgd(SCHEDULE, topologies.ring(4)),
    "all-reduce": lambda: dmsgd(SCHEDULE, exact()),
}


def weights_of(tx) -> np.ndarray:
    """[steps + 1, workers, d]."""
    weights, _ = harness.run(tx, problem())
    if weights.ndim == 2:
        weights = weights[:, None].repeat(4, axis=1)
    return weights


def over_sgd(buffers: str, **options) -> np.ndarray:
    """Over local momentum SGD with a schedule."""
    inner, average = optax.sgd(SCHEDULE, 0.9), BUFFERS[buffers]()
    return weights_of(
        slowmo(inner, exact(), learning_rate=SCHEDULE, buffers=average, **options)
    )


@pytest.mark.parametrize("buffers", BUFFERS)
def test_buffers_are_kept_reset_or_averaged_under_a_schedule(buffers):
    """At every worker's momentum, with the rate of the last local step."""
    ours = over_sgd(buffers, period=7, slow_momentum=0.6, slow_learning_rate=0.9)
    expected, _ = references_local.slowmo(
        problem(),
        rate_at,
        references.everything,
        0.6,
        inner=0.9,
        alpha=0.9,
        period=7,
        buffers=buffers,
    )
    same(ours, expected, atol=1e-10)


@pytest.mark.parametrize("buffers", BUFFERS)
def test_with_no_slow_momentum_over_sgd_it_is_local_sgd(buffers):
    """As transcribed, with each of the strategies."""
    expected, _ = references_local.local_sgd(
        problem(), rate_at, references.everything, period=6, buffers=buffers
    )
    same(over_sgd(buffers, period=6, slow_momentum=0.0), expected, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "buffers"), list(zip(INNER, itertools.cycle(BUFFERS), strict=False))
)
def test_without_slow_momentum_it_is_the_inner_method_with_syncs(name, buffers):
    inner = INNER[name]
    ours = weights_of(
        slowmo(
            inner(),
            exact(),
            period=6,
            slow_momentum=0.0,
            learning_rate=SCHEDULE,
            buffers=BUFFERS[buffers](),
        )
    )
    plain = periodic(
        inner(),
        optax.chain(averaged(exact()), optax.scale(-1.0)),
        6,
        buffers=BUFFERS[buffers](),
    )
    same(ours, weights_of(plain))
    met = ours[6::6]
    same(met, met[:, :1].repeat(4, axis=1))
    if name != "all-reduce":
        assert np.ptp(ours[5], axis=0).max() > 1e-3


@pytest.mark.parametrize("name", INNER)
def test_every_inner_method_is_moved_as_the_slow_momentum_says(name):
    """The anchor moves by the rate of the last local step times the slow momentum."""
    tx = slowmo(
        INNER[name](), exact(), period=6, slow_momentum=0.5, learning_rate=SCHEDULE
    )
    weights, states = harness.run(tx, problem())
    anchors = problems.flat(states.anchor, leading=1)
    momenta = problems.flat(optax.tree.get(states, "momentum"), leading=1)
    for t in range(6, 49, 6):
        same(anchors[t - 6 : t], np.stack([anchors[t - 6]] * 6))
        u = (anchors[t - 6] - anchors[t]) / rate_at(t - 1)
        np.testing.assert_allclose(momenta[t], u, rtol=1e-9, atol=1e-9)
        assert np.abs(u - 0.5 * momenta[t - 1]).max() > 1e-3
        everyone = weights[t].reshape(-1, 20)
        same(everyone, anchors[t] + 0 * everyone)


def test_of_single_steps_it_is_momentum_sgd():
    trace = optax.chain(averaged(exact()), optax.trace(0.5), optax.sgd(RATE))
    ours = slowmo(optax.sgd(RATE), exact(), period=1, learning_rate=RATE)
    same(weights_of(ours), weights_of(trace))


def test_over_local_sgd_at_a_constant_rate_it_is_bmuf():
    """With the block's rate for alpha, whether the rate is given or not."""
    inner = optax.sgd(RATE, 0.9)
    block = bmuf(inner, exact(), period=4, block_momentum=0.5, block_learning_rate=0.7)
    for rate in (None, RATE):
        slow = slowmo(
            inner, exact(), period=4, slow_learning_rate=0.7, learning_rate=rate
        )
        same(weights_of(slow), weights_of(block))


def test_without_slow_momentum_it_is_lookahead():
    inner = optax.sgd(SCHEDULE, 0.9)
    slow = slowmo(
        inner,
        exact(),
        period=5,
        slow_momentum=0,
        slow_learning_rate=0.5,
        learning_rate=SCHEDULE,
    )
    same(weights_of(slow), weights_of(lookahead(inner, exact())))


def test_of_single_steps_without_slow_momentum_it_is_dmsgd():
    """With each worker's momentum kept, or averaged, which is the same."""
    for buffers in (maintain_buffers(), average_buffers(exact())):
        ours = slowmo(
            optax.sgd(SCHEDULE, 0.9),
            exact(),
            period=1,
            slow_momentum=0,
            learning_rate=SCHEDULE,
            buffers=buffers,
        )
        same(weights_of(ours), weights_of(dmsgd(SCHEDULE, exact())))


def test_without_averages_each_worker_is_alone():
    """The paper's variant: its own anchor and slow momentum."""
    tx = slowmo(optax.sgd(RATE, 0.9), no_communication(), period=4, learning_rate=RATE)
    ours = weights_of(tx)
    for k in range(4):
        mine = problems.Problem(
            problem().hessians[[k]],
            problem().targets[[k]],
            problem().noise[:, [k]],
            problem().start,
        )
        expected, _ = references_local.slowmo(
            mine,
            lambda t: RATE,
            lambda step, vector: np.ones(vector.size, bool),
            0.5,
            inner=0.9,
            alpha=1.0,
            period=4,
        )
        same(ours[:, k], expected[:, 0], atol=1e-10)


def test_a_compressed_outer_channel_with_global_momentum():
    """GMC on the outer loop: the residual is in units of ways."""
    channel = gmc_jax.all_gather(gmc_jax.top_k(0.2))
    tx = periodic(optax.sgd(RATE), gmc(1.0, channel, momentum=0.5), 4)
    weights, states = harness.run(tx, problem())
    z, d = problem().start, np.zeros(20)
    es, xs = np.zeros((4, 20)), np.stack([problem().start] * 4)
    for t in range(problem().steps):
        xs = np.stack(
            [x - RATE * problem().gradient(k, t, x) for k, x in enumerate(xs)]
        )
        if (t + 1) % 4 == 0:
            mean = np.zeros(20)
            for k in range(4):
                u = es[k] + (z - xs[k]) + 0.5 * d
                sent = np.zeros(20, bool)
                sent[np.argsort(-np.abs(u), kind="stable")[:4]] = True
                es[k] = np.where(sent, 0, u)
                mean += np.where(sent, u, 0) / 4
            z, d = z - mean, mean
            xs = np.stack([z] * 4)
        same(weights[t + 1], xs, atol=1e-10)
    same(harness.residual(states)[-1], es, atol=1e-10)


# What it sends.


def compiled(tx):
    params = harness.start()
    state = params, tx.init(params)
    batch = jax.tree.map(lambda b: b[0], harness.targets(params, 1))
    return *gmc_jax.distribute(harness.step_of(tx), state, batch), batch


@pytest.mark.parametrize(
    "tx",
    [
        slowmo(optax.sgd(0.1, 0.9), exact(), period=12),
        local_sgd(0.1, exact(), period=12, momentum=0.9),
    ],
    ids=["slowmo", "local_sgd"],
)
def test_the_all_reduce_is_in_the_conditional_alone(tx):
    train, state, batch = compiled(tx)
    sent = wire_bytes(train, state, batch)
    assert sent.always == 0
    assert sent == 80
    assert {(name, inside) for name, _, inside, *_ in sent.operations} == {
        ("all-reduce", True)
    }


def calls(channel):
    """The channel, which tells a host how often it has really averaged."""
    count = []

    def average(tree, state):
        worker = jax.lax.axis_index("workers")
        jax.debug.callback(lambda worker: count.append(int(worker)), worker)
        return channel.average(tree, state)

    return channel._replace(average=average), count


@pytest.mark.parametrize("runner", ["simulate", "distribute"])
def test_over_48_steps_of_period_12_four_collectives_are_executed(runner):
    channel, count = calls(exact())
    tx = slowmo(optax.sgd(0.1), channel, period=12)
    params = harness.start()
    harness.drive(
        harness.RUNNERS[runner],
        harness.step_of(tx),
        (params, tx.init(params)),
        harness.targets(params, 48),
    )
    jax.effects_barrier()
    assert sorted(count) == sorted(list(range(8)) * 4)


def test_a_rate_of_zero_at_a_sync_makes_no_nan():

    def late(t: jax.typing.ArrayLike) -> jax.Array:
        return jnp.where(jnp.asarray(t) < 20, 0.0, 0.02)

    tx = slowmo(optax.sgd(late), exact(), period=4, learning_rate=late)
    weights = weights_of(tx)
    same(weights[20], weights[0])
    assert np.isfinite(weights).all()
    assert np.abs(weights[-1] - weights[0]).max() > 0.1


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="`slow_learning_rate`"):
        slowmo(optax.sgd(0.1), exact(), slow_learning_rate=0)
    with pytest.raises(ValueError, match=r"`(decay|slow_momentum)`"):
        slowmo(optax.sgd(0.1), exact(), slow_momentum=1)
    with pytest.raises(ValueError, match="`period`"):
        slowmo(optax.sgd(0.1), exact(), period=cast(Any, 1.5))
    with pytest.raises(TypeError, match="`channel` must be a channel"):
        slowmo(optax.sgd(0.1), cast(Any, gmc_jax.top_k(0.1)))


# Where workers are heard unequally often, so that their weights differ.
UNEVEN = topologies.pushing(np.triu(np.ones((4, 4))) + np.eye(4, k=-1))
MET = [("maintain", 1, 0, 0.5), ("reset", 6, 1, 0.0), ("average", 5, 2, 0.0)]
REST = set(itertools.product(BUFFERS, [1, 6], [0, 1, 2], [0.0, 0.5])) - set(MET)


@pytest.mark.parametrize(
    ("buffers", "period", "delay", "slow"),
    [*MET, *(pytest.param(*one, marks=pytest.mark.slow) for one in sorted(REST))],
)
def test_over_push_sum_workers_count_by_their_mass(buffers, period, delay, slow):
    """Syncs move what the inner method conserves: what lies here, and is in flight.

    The sum of all masses times z does not move where the sync is a plain average.
    """
    tx = slowmo(
        sgp(RATE, UNEVEN, momentum=0.5, delay=delay),
        exact(),
        period=period,
        slow_momentum=slow,
        buffers=BUFFERS[buffers](),
    )
    points, states = harness.run(tx, problem())
    expected, masses, sums = references_gossip.sgp(
        problem(),
        lambda t: RATE,
        UNEVEN.rounds,
        0.5,
        delay=delay,
        period=period,
        slow=slow,
        buffers=buffers,
    )
    same(points, expected, atol=1e-10)
    (push,) = find(states, gmc_jax.PushSumState)
    weights = push.weight["bias"].reshape(51, -1) + np.zeros(4)
    np.testing.assert_allclose(weights, masses, rtol=1e-12)
    numerators = np.einsum("tk,tkd->td", weights, points.reshape(51, -1, 20))
    total = weights.sum(axis=1)
    for numerator, weight in push.channel.in_flight:
        numerators += problems.flat(numerator, leading=2).sum(axis=1)
        total += weight["bias"].sum(axis=1)
    same(numerators, sums[:, :-1], atol=1e-10)
    np.testing.assert_allclose(total, 4, rtol=1e-12)


@pytest.mark.slow
def test_runners_agree_on_messages_that_syncs_move():
    """On an uneven graph of eight, with buffers that start again."""
    uneven = topologies.pushing(np.triu(np.ones((8, 8))) + np.eye(8, k=-1))
    inner = sgp(0.1, uneven, momentum=0.5, delay=1)
    tx = slowmo(inner, exact(), period=3, buffers=reset_buffers())
    params = harness.start()
    ends = [
        harness.drive(
            runner,
            harness.step_of(tx),
            (params, tx.init(params)),
            harness.targets(params, 7),
        )[0]
        for runner in (harness.simulate, gmc_jax.distribute, harness.pmap)
    ]
    harness.close(ends[1], ends[0])
    harness.close(ends[2], ends[0])


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_over_d2_what_a_sync_changes_is_not_given_back(momentum):
    """Or slow momentum would be applied twice; at rest there is still no bias."""
    still = problems.quadratics(5, d=6)._replace(noise=np.zeros((1500, 5, 6)))
    tx = slowmo(d2(0.05, topologies.ring(5)), exact(), period=6, slow_momentum=momentum)
    weights, _ = harness.run(tx, still)
    assert np.abs(weights[-1] - still.optimum).max() < 1e-9


def test_the_inner_method_may_be_flattened():
    """So that its state does not mirror the parameters, as long as it is kept."""
    inner = optax.sgd(RATE, 0.9)
    flat = slowmo(optax.flatten(inner), exact(), period=6)
    same(weights_of(flat), weights_of(slowmo(inner, exact(), period=6)))
