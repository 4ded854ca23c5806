"""Tests of steps that are taken without the workers that have a NaN or Inf."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import (
    all_gather,
    averaged,
    error_feedback,
    exact,
    gmc,
    leave_out_nonfinite,
    majority_vote,
    random_block,
    skip_nonfinite,
    top_k,
)
from gmc_jax.core import Tree
from tests.support import harness, problems
from tests.support.harness import WORKERS, drive, every_runner, start, step_of, targets
from tests.support.virtual_iterates import RATE, SCHEDULE

BROKEN = {1: [3], 2: [0, 5, 7], 4: list(range(1, 8)), 5: list(range(8))}  # of 8 workers
BATCHES = 7


def broken_batches():
    """Targets that are not finite for some workers; at the last step, for none."""
    batches = targets(start(), BATCHES)
    for step, workers in BROKEN.items():
        for place, worker in enumerate(workers):
            leaf = batches[["bias", "kernel"][place % 2]]
            leaf[step, worker, ..., 1] = [np.nan, np.inf, -np.inf][place % 3]
    return batches


def finite_workers(step: int) -> list[int]:
    return [k for k in range(WORKERS) if k not in BROKEN.get(step, [])]


def leaving_out(runner, channel):
    """Plain steps of the mean gradient; parameters, residual and counts per step."""
    tx = leave_out_nonfinite(optax.chain(optax.scale(-0.1), error_feedback(channel)))

    def step(state, batch):
        (params, opt_state), _ = step_of(tx)(state, batch)
        guard: Tree = opt_state
        residuals = optax.tree.get(guard, "residual")
        counts = guard.skipped, guard.left_out
        return (params, guard), {
            "params": params,
            "residuals": residuals,
            "counts": counts,
        }

    return drive(
        runner,
        step,
        (start(), tx.init(start())),
        broken_batches(),
        replicated=lambda state: (state[0], state[1].skipped),
    )


def mean_steps(points: np.ndarray) -> np.ndarray:
    """-0.1 times the mean gradient of the finite workers, [steps, d]."""
    goals = problems.flat(broken_batches(), 2)
    steps = []
    for step in range(BATCHES):
        those = finite_workers(step)
        pull = points[step] - goals[step, those]
        steps.append(-0.1 * pull.mean(axis=0) if those else 0 * points[step])
    return np.stack(steps)


@every_runner
@pytest.mark.parametrize("channel", [exact(), all_gather(top_k(0.2))], ids=["all", "k"])
def test_the_mean_is_that_of_the_finite_workers(runner, channel):
    """No part of it is lost: the mean of residual + out grows by it."""
    _, seen = leaving_out(runner, channel)
    points = problems.flat(seen["params"], 2)[:, 0]
    points = np.concatenate([problems.flat(start())[None], points])
    residuals = problems.flat(seen["residuals"], 2).mean(axis=1)
    residuals = np.concatenate([np.zeros_like(residuals[:1]), residuals])
    grown = np.diff(points + residuals, axis=0)
    np.testing.assert_allclose(grown, mean_steps(points), rtol=1e-5, atol=1e-6)

    skipped, left_out = seen["counts"]
    assert skipped[-1].tolist() == [1] * WORKERS
    expected = [
        sum(k in BROKEN.get(step, []) for step in (1, 2, 4)) for k in range(WORKERS)
    ]
    assert left_out[-1].tolist() == expected


def test_in_double_precision_the_factor_is_exact():
    tx = leave_out_nonfinite(averaged(exact()))
    with jax.enable_x64(True):
        gradients = np.random.default_rng(0).normal(size=(1, 7, 20))
        expected = gradients[0, [0, 1, 3, 4, 6]].mean(axis=0)
        gradients[0, [2, 5], 3] = np.nan
        moved, _ = harness.updates(tx, jnp.zeros(20), gradients)
    np.testing.assert_allclose(moved[0, 0], expected, rtol=1e-14)


def test_where_no_worker_is_finite_all_skip():
    tx = leave_out_nonfinite(gmc(RATE, all_gather(top_k(0.2))))
    gradients = np.full((1, 4, 20), np.nan, np.float32)
    moved, states = harness.updates(tx, jnp.zeros(20), gradients)
    assert not moved.any()
    first, last = (jax.tree.map(lambda leaf, t=t: leaf[t], states) for t in (0, 1))
    chex.assert_trees_all_equal(last.inner, first.inner)
    assert last.skipped == 1
    assert np.all(last.left_out == 0)


@every_runner
def test_with_finite_updates_it_changes_nothing(runner):
    """To the last bit: one factor, which is 1."""
    method = gmc(SCHEDULE, all_gather(random_block(0.2)))
    batches = targets(start(), 4)

    def run(tx):
        return drive(runner, step_of(tx), (start(), tx.init(start())), batches)[0]

    params, opt_state = run(leave_out_nonfinite(method))
    expected, inner = run(method)
    chex.assert_trees_all_equal(params, expected)
    chex.assert_trees_all_equal(opt_state.inner, inner)
    assert opt_state.left_out.tolist() == [0] * WORKERS


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bits_stay_16_bits_and_finite(dtype):
    largest = jnp.finfo(dtype).max
    gradients = jnp.full((1, 4, 3), largest, dtype).at[0, 1, 0].set(jnp.nan)
    tx = leave_out_nonfinite(optax.identity())
    moved, _ = harness.updates(tx, jnp.zeros(3, dtype), gradients)
    assert moved.dtype == dtype
    np.testing.assert_array_equal(moved[0, 0], largest)
    np.testing.assert_array_equal(moved[0, 1], 0)


def test_a_worker_that_is_left_out_votes_with_its_momentum():
    """Minus where its momentum is negative, and plus without a momentum."""
    gradients = np.full((2, 3, 4), -1, np.float32)
    gradients[:, 1] = 1
    gradients[1, 2] = np.nan  # It voted minus; the others are one and one.
    for make, expected in ((gmc_jax.signum, -1), (gmc_jax.sign_sgd, 1)):
        tx = leave_out_nonfinite(make(1.0, majority_vote()))
        moved, _ = harness.updates(tx, jnp.zeros(4), gradients)
        np.testing.assert_array_equal(np.sign(moved[1, 0]), -expected)


@pytest.mark.parametrize(
    ("inner", "does"),
    [
        (gmc_jax.local_sgd(0.1, exact(), period=4), "takes local steps"),
        (gmc_jax.accumulate(gmc_jax.slowmo(optax.sgd(0.1), exact()), 2), "local steps"),
        (gmc_jax.svrg(0.1, exact(), epoch_length=3), "compares gradients"),
    ],
    ids=["local_sgd", "slowmo", "svrg"],
)
def test_it_refuses_methods_whose_gradients_must_not_be_scaled(inner, does):
    params = jnp.zeros(3)
    with pytest.raises(ValueError, match=rf"`inner` .*{does}.*`skip_nonfinite\("):
        leave_out_nonfinite(inner).init(params)
    skip_nonfinite(inner).init(params)
