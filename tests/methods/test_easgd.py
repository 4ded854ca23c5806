"""Tests of elastic averaging: its fixed points, its special cases, its model."""

import jax
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import easgd, exact
from tests.support import harness, problems
from tests.support.virtual_iterates import RATE, problem


def test_the_centre_follows_a_part_of_the_way_to_the_mean_and_is_the_model():
    tx = easgd(optax.sgd(0.1), exact(), period=2, centre_rate=0.25)
    state = harness.start(), tx.init(harness.start())
    step, batches = harness.step_of(tx), harness.targets(harness.start(), 2)
    batch = jax.tree.map(lambda b: b[0], batches)
    layout = gmc_jax.layout(step, state, batch, harness.WORKERS)
    (params, opt_state), _ = harness.drive(harness.simulate, step, state, batches)

    before = problems.flat(harness.start())
    xs = np.stack([before] * harness.WORKERS)
    for targets in problems.flat(batches, leading=2):
        xs = xs - 0.1 * (xs - targets)
    centre = 0.75 * before + 0.25 * xs.mean(axis=0)
    model = gmc_jax.evaluate(opt_state, params, layout)
    np.testing.assert_allclose(problems.flat(model), centre, rtol=1e-5)
    xs = xs - 0.25 / harness.WORKERS * (xs - before)
    np.testing.assert_allclose(problems.flat(params, leading=1), xs, rtol=1e-5)


@pytest.mark.slow
def test_without_a_rate_workers_train_alone():
    ours, states = harness.run(
        easgd(optax.sgd(RATE, 0.9), exact(), period=3, centre_rate=0.0), problem()
    )
    sgd = gmc_jax.dmsgd_local(RATE, gmc_jax.no_communication(), momentum=0.9)
    alone, _ = harness.run(sgd, problem())
    np.testing.assert_allclose(ours, alone, rtol=0, atol=1e-13)
    centres = problems.flat(optax.tree.get(states, "centre"), leading=1)
    np.testing.assert_array_equal(centres, np.stack([problem().start] * 51))


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="`centre_rate`"):
        easgd(optax.sgd(0.1), exact(), period=2, centre_rate=1.5)
    with pytest.raises(ValueError, match="`period`"):
        easgd(optax.sgd(0.1), exact(), period=0)
