"""Tests of local SGD: the methods that it contains; its paper is in test_laws."""

import functools

import jax
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import (
    all_gather,
    averaged,
    dmsgd,
    exact,
    local_sgd,
    message_bits,
    top_k,
    wire_bytes,
)
from tests.support import harness, problems, references
from tests.support.virtual_iterates import RATE, SCHEDULE, problem, rate_at

same = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("momentum", "nesterov", "on_the_mean"),
    [
        (0.0, False, dmsgd(SCHEDULE, exact(), momentum=0.0)),
        (0.9, False, dmsgd(SCHEDULE, exact())),
        (0.9, True, optax.chain(averaged(exact()), optax.sgd(SCHEDULE, 0.9, True))),
    ],
)
def test_of_single_steps_it_is_momentum_sgd(momentum, nesterov, on_the_mean):
    tx = local_sgd(SCHEDULE, exact(), period=1, momentum=momentum, nesterov=nesterov)
    ours, _ = harness.run(tx, problem())
    sgd, _ = harness.run(on_the_mean, problem())
    same(ours, sgd[:, None].repeat(4, axis=1))


def test_workers_that_are_alike_are_one():
    """Full batches of the same data."""
    one = problems.quadratics(1)
    three = problems.Problem(
        one.hessians.repeat(3, axis=0),
        one.targets.repeat(3, axis=0),
        one.noise.repeat(3, axis=1),
        one.start,
    )
    ours, _ = harness.run(local_sgd(SCHEDULE, exact(), period=7, momentum=0.9), three)
    serial, _ = references.dmsgd(one, rate_at, references.everything)
    same(ours, serial[:, None].repeat(3, axis=1))


@pytest.mark.parametrize("period", [3, 10])
def test_of_workers_with_one_hessian_the_mean_is_sgd(period):
    shared = problem()._replace(hessians=problem().hessians[[0] * 4])
    ours, _ = harness.run(local_sgd(SCHEDULE, exact(), period=period), shared)
    sgd, _ = references.dmsgd(shared, rate_at, references.everything, beta=0.0)
    same(ours.mean(axis=1), sgd)
    assert np.ptp(ours[period - 1], axis=0).max() > 0.01


def test_the_period_may_be_a_schedule_of_the_step():
    """Workers synchronise after as many steps as the schedule says at that step."""
    growing = optax.piecewise_constant_schedule(2, {10: 2.5})  # 2, and 5 from 11 on
    tx = local_sgd(RATE, exact(), period=growing)
    weights, _ = harness.run(tx, problem())
    apart = np.ptp(weights, axis=1).max(axis=1) > 1e-12
    met = [t for t in range(1, 51) if not apart[t]]
    assert met == [2, 4, 6, 8, 10, *range(15, 51, 5)]


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="`period`"):
        local_sgd(0.1, exact(), period=0)
    with pytest.raises(ValueError, match="`momentum`"):
        local_sgd(0.1, exact(), period=2, momentum=-1)
    tx = local_sgd(0.1, exact(), period=2)
    with pytest.raises(ValueError, match="`params` must be given"):
        tx.update(np.ones(2), tx.init(np.ones(2)))


def test_syncs_send_in_the_dtypes_of_the_parameters():
    channel = all_gather(top_k(0.1))
    params = jax.tree.map(lambda x: x.astype("bfloat16"), harness.start())
    tx = local_sgd(0.1, channel, period=1)
    batch = jax.tree.map(lambda b: b[0], harness.targets(params, 1))
    state = params, tx.init(params)
    train, state = gmc_jax.distribute(harness.step_of(tx), state, batch)
    assert 8 * wire_bytes(train, state, batch) == message_bits(channel, params)
