"""A worker whose gradient is not finite: what the guard saves, and what breaks else."""

import functools

import chex
import jax
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import all_gather, all_reduce, exact, gmc, random_block, top_k
from tests.support import problems
from tests.support.harness import (
    WORKERS,
    distribute_if_slow,
    drive,
    every_runner,
    simulate,
    start,
    step_of,
    targets,
)

STEPS = 200
CHANNELS = {
    "top_k": all_gather(top_k(0.2)),
    "random_block": all_reduce(random_block(0.2)),
    "exact": exact(),
}

every_channel = pytest.mark.parametrize(
    "channel",
    [
        pytest.param(channel, marks=() if channel == "top_k" else pytest.mark.slow)
        for channel in CHANNELS
    ],
)
every_fault = pytest.mark.parametrize(
    ("channel", "fault"),
    [
        ("top_k", np.nan),
        ("top_k", np.inf),
        pytest.param("random_block", np.nan, marks=pytest.mark.slow),
        ("exact", -np.inf),
    ],
)


@functools.cache
def poisoned_steps() -> np.ndarray:
    """At which of the steps a worker breaks, a tenth of them."""
    return np.sort(np.random.default_rng(7).choice(STEPS, STEPS // 10, replace=False))


def poisoned(fault: float):
    """Targets with one broken entry of one worker, at random, at those steps."""
    draw = np.random.default_rng(8)
    batches = targets(start(), STEPS)
    for t in poisoned_steps():
        leaf = batches[draw.choice(["bias", "kernel"])][t]
        leaf[tuple(draw.integers(leaf.shape))] = fault
    return batches


def method(channel: str) -> optax.GradientTransformationExtraArgs:
    """GMC whose rate is 0 after as many steps as are whole."""
    schedule = optax.cosine_decay_schedule(0.02, STEPS - STEPS // 10)
    return gmc(schedule, CHANNELS[channel])


def train(runner, tx, batches):
    return drive(
        runner,
        step_of(tx),
        (start(), tx.init(start())),
        batches,
        replicated=lambda state: state[0],
    )


@distribute_if_slow
@every_fault
def test_guarded_training_skips_what_is_broken_and_ends_near_the_clean_run(
    runner, channel, fault
):
    tx = gmc_jax.skip_nonfinite(method(channel))
    (clean, _), _ = train(runner, method(channel), targets(start(), STEPS))
    (params, opt_state), _ = train(runner, tx, poisoned(fault))

    assert opt_state.skipped == STEPS // 10
    chex.assert_tree_all_finite((params, opt_state))
    gap = problems.flat(params) - problems.flat(clean)
    way = problems.flat(start()) - problems.flat(clean)
    assert np.linalg.norm(gap) < 0.05 * np.linalg.norm(way)


@distribute_if_slow
@every_channel
def test_leaving_the_broken_out_loses_no_step_and_ends_near_the_clean_run(
    runner, channel
):
    """At each of those steps seven of eight workers are heard."""
    whole = gmc(optax.cosine_decay_schedule(0.02, STEPS), CHANNELS[channel])
    tx = gmc_jax.leave_out_nonfinite(whole)
    (clean, _), _ = train(runner, whole, targets(start(), STEPS))
    (params, opt_state), _ = train(runner, tx, poisoned(np.nan))

    assert opt_state.skipped == 0
    assert opt_state.left_out.sum() == STEPS // 10
    chex.assert_tree_all_finite((params, opt_state))
    gap = problems.flat(params) - problems.flat(clean)
    way = problems.flat(start()) - problems.flat(clean)
    assert np.linalg.norm(gap) < 0.05 * np.linalg.norm(way)


@distribute_if_slow
@every_channel
def test_a_skipped_step_is_as_if_it_had_not_been(runner, channel):
    """To the bit: residuals, momentum, schedule and the channel's draws stay."""
    tx = gmc_jax.skip_nonfinite(method(channel))
    whole = np.setdiff1d(np.arange(STEPS), poisoned_steps())
    without = jax.tree.map(lambda leaf: leaf[whole], targets(start(), STEPS))
    (params, opt_state), _ = train(runner, tx, poisoned(np.nan))
    (expected, inner), _ = train(runner, tx, without)
    chex.assert_trees_all_equal(params, expected)
    chex.assert_trees_all_equal(opt_state.inner, inner.inner)


@distribute_if_slow
@every_channel
def test_a_clean_run_skips_nothing(runner, channel):
    batches = targets(start(), 20)
    tx = gmc_jax.skip_nonfinite(method(channel))
    (params, opt_state), _ = train(runner, tx, batches)
    (expected, inner), _ = train(runner, method(channel), batches)
    assert opt_state.skipped == 0
    chex.assert_trees_all_close(params, expected, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(opt_state.inner, inner, rtol=1e-5, atol=1e-6)


@distribute_if_slow
@every_fault
def test_without_the_guard_one_worker_breaks_the_parameters_of_all(
    runner, channel, fault
):
    first = poisoned_steps()[0]
    batches = jax.tree.map(lambda leaf: leaf[first : first + 30], poisoned(fault))
    (params, _), _ = train(runner, method(channel), batches)
    assert not np.isfinite(problems.flat(params)).all()
    healthy = targets(start(), 30, seed=9)
    (params, _), _ = train(runner, method(channel), healthy)
    assert np.isfinite(problems.flat(params)).all()


@every_runner
def test_a_guard_of_each_worker_by_itself_lets_parameters_differ(runner):
    """`optax.apply_if_finite`: the layout proves it, before anything runs."""
    tx = optax.apply_if_finite(method("top_k"), max_consecutive_errors=5)
    state = start(), tx.init(start())
    batch = jax.tree.map(lambda leaf: leaf[0], targets(start(), 1))
    plan = gmc_jax.layout(step_of(tx), state, batch, WORKERS)
    assert all(jax.tree.leaves(plan.differs[0]))
    with pytest.raises(ValueError, match=r"state\[0\]\['bias'\].*skip_nonfinite"):
        runner(step_of(tx), state, batch, replicated=lambda state: state[0])

    ours = gmc_jax.skip_nonfinite(method("top_k"))
    plan = gmc_jax.layout(step_of(ours), (start(), ours.init(start())), batch, WORKERS)
    assert not any(jax.tree.leaves(plan.differs[0]))


def test_and_they_do_differ():
    """Where workers are simulated the program runs, and the broken one stays behind."""
    tx = optax.apply_if_finite(method("top_k"), max_consecutive_errors=5)
    batches = targets(start(), 1)
    batches["bias"][0, 3, 2] = np.nan
    (params, _), _ = drive(simulate, step_of(tx), (start(), tx.init(start())), batches)
    moved = np.any(params["kernel"] != np.asarray(start()["kernel"]), axis=(1, 2))
    assert moved.tolist() == [worker != 3 for worker in range(WORKERS)]
