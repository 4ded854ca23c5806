"""Tests of DEF-A: the training of DEF, and where each of the two is evaluated."""

import functools

import chex
import jax
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import all_gather, def_a, def_sgd, evaluate, top_k
from tests.support import harness, problems
from tests.support.harness import (
    WORKERS,
    close,
    every_runner,
    residual,
    start,
    step_of,
    targets,
)
from tests.support.virtual_iterates import CHANNELS, SCHEDULE, problem

RATE, STEPS = 0.1, 4


def test_its_training_is_that_of_def():
    ours, states = harness.run(def_a(SCHEDULE, CHANNELS["top_k"]), problem())
    theirs, others = harness.run(def_sgd(SCHEDULE, CHANNELS["top_k"]), problem())
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(residual(states), residual(others))


@functools.cache
def method(factory) -> optax.GradientTransformationExtraArgs:
    return factory(RATE, all_gather(top_k(0.2)), detach=0.3)


def evaluated(runner, factory):
    """After each step: what is evaluated, parameters, mean residual, mean momentum."""
    tx, batches = method(factory), targets(start(), STEPS)
    state, step = (start(), tx.init(start())), step_of(tx)
    batch = jax.tree.map(lambda leaf: leaf[0], batches)
    plan = gmc_jax.layout(step, state, batch, WORKERS)
    train, state = runner(step, state, batch)
    seen = []
    for t in range(STEPS):
        state, _ = train(state, jax.tree.map(lambda leaf, t=t: leaf[t], batches))
        params, opt_state = state
        own = [optax.tree.get(opt_state, name) for name in ("residual", "trace")]
        means = jax.tree.map(lambda leaf: leaf.mean(axis=0), gmc_jax.fetch(own))
        seen.append((evaluate(opt_state, params, plan), params, *means))
        # What is donated to the next step is gone.
        seen[-1] = gmc_jax.fetch(seen[-1])
    return seen


@every_runner
def test_def_a_is_evaluated_as_if_all_residuals_were_sent(runner):
    """x - mean e, our residual being -e; it moves by -lr times the mean momentum."""
    last = start()
    for point, params, residuals, momentum in evaluated(runner, def_a):
        close(point, jax.tree.map(np.add, params, residuals))
        close(point, jax.tree.map(lambda x, m: x - RATE * m, last, momentum))
        assert np.abs(problems.flat(point) - problems.flat(params)).max() > 0.01
        last = point


@every_runner
def test_def_is_evaluated_at_the_parameters(runner):
    for point, params, residuals, _ in evaluated(runner, def_sgd):
        chex.assert_trees_all_equal(point, params)
        assert np.abs(problems.flat(residuals)).max() > 0.01


@pytest.mark.parametrize("detach", [-0.1, 1.5])
def test_how_far_must_be_a_proportion(detach):
    with pytest.raises(ValueError, match=r"`detach` must be in \[0, 1\]"):
        def_a(RATE, CHANNELS["top_k"], detach=detach)
