"""Tests of skipping a step that one worker's NaN or Inf would poison for all."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import (
    Compressor,
    all_gather,
    averaged,
    dense,
    dgc,
    error_feedback,
    exact,
    gmc,
    majority_vote,
    random_block,
    skip_nonfinite,
    top_k,
)
from gmc_jax.core import Tree
from tests.support import harness, problems
from tests.support.harness import WORKERS, drive, every_runner, start, step_of, targets
from tests.support.virtual_iterates import RATE, SCHEDULE, problem

BAD = {3: 0, 4: 2, 17: 3, 30: 1, 49: 0}  # step: worker


def poisoned(value: float) -> problems.Problem:
    """One coordinate of one worker's gradient is not finite at some steps."""
    noise = problem().noise.copy()
    for step, worker in BAD.items():
        noise[step, worker, 5] = value
    return problem()._replace(noise=noise)


def without_the_bad_steps() -> problems.Problem:
    return problem()._replace(noise=np.delete(problem().noise, list(BAD), axis=0))


@pytest.mark.parametrize(
    ("make", "value"), [(gmc, np.nan), (dgc, np.inf), (dgc, -np.inf)]
)
def test_all_workers_skip_the_step_as_if_it_had_never_been(make, value):
    """The schedule, the residuals and the momentum included."""
    tx = skip_nonfinite(make(SCHEDULE, all_gather(top_k(0.2))))
    weights, states = harness.run(tx, poisoned(value))
    expected, expected_states = harness.run(tx, without_the_bad_steps())

    good = np.delete(np.arange(50), list(BAD)) + 1
    np.testing.assert_allclose(weights[good], expected[1:], rtol=1e-12)
    last = jax.tree.map(lambda leaf: leaf[-1], states.inner)
    chex.assert_trees_all_close(
        last, jax.tree.map(lambda leaf: leaf[-1], expected_states.inner), rtol=1e-9
    )
    chex.assert_tree_all_finite(states)


def test_the_steps_skipped_are_counted():
    tx = skip_nonfinite(gmc(RATE, all_gather(top_k(0.2))))
    weights, states = harness.run(tx, poisoned(np.nan))
    counts = np.cumsum([0, *(step in BAD for step in range(50))])
    np.testing.assert_array_equal(states.skipped, counts)
    still = np.all(np.diff(weights, axis=0) == 0, axis=1)
    assert set(np.flatnonzero(still)) == set(BAD)


def test_training_ends_near_the_clean_run():
    tx = gmc(RATE, all_gather(top_k(0.2)))
    clean, _ = harness.run(tx, problem())
    guarded, _ = harness.run(skip_nonfinite(tx), poisoned(np.nan))
    start = np.linalg.norm(clean[0] - clean[-1])
    assert np.linalg.norm(guarded[-1] - clean[-1]) < 0.3 * start


def test_without_the_guard_it_breaks_for_good():
    weights, states = harness.run(gmc(RATE, all_gather(top_k(0.2))), poisoned(np.nan))
    assert np.isfinite(weights[3]).all()
    assert np.isnan(weights[4:]).any(axis=1).all()
    assert np.isnan(harness.residual(states)[-1]).any()


def test_with_finite_updates_it_changes_nothing():
    tx = gmc(SCHEDULE, all_gather(top_k(0.2)))
    ours, states = harness.run(skip_nonfinite(tx), problem())
    theirs, inner = harness.run(tx, problem())
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    chex.assert_trees_all_close(states.inner, inner, rtol=1e-9)
    assert not states.skipped.any()


def test_a_leafless_tree_is_finite():
    tx = skip_nonfinite(optax.identity())
    state = tx.init({})
    states: Tree = jax.vmap(
        lambda batch: tx.update({}, state)[1], axis_name="workers", out_axes=None
    )(jnp.ones(3))
    assert states.skipped == 0


def test_outside_the_axis_the_error_says_how_to_get_inside():
    tx = skip_nonfinite(optax.sgd(0.1))
    params = jnp.ones(2)
    with pytest.raises(NameError, match=r"'workers'.*`gmc_jax.simulate`"):
        tx.update(params, tx.init(params))


def test_the_axis_may_have_another_name():
    tx = skip_nonfinite(optax.identity(), axis_name="replicas")
    state = tx.init(jnp.zeros(()))
    gradients = jnp.array([1.0, jnp.nan])
    out: Tree = jax.vmap(lambda g: tx.update(g, state), axis_name="replicas")(gradients)
    moved, states = out
    assert moved.tolist() == [0, 0]
    assert states.skipped.tolist() == [1, 1]


# Leaving out.

BROKEN = {1: [3], 2: [0, 5, 7], 4: list(range(1, 8)), 5: list(range(8))}  # of 8 workers
BATCHES = 7


def broken_batches():
    """Targets that are no numbers for some workers; of the last, for none."""
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
    tx = skip_nonfinite(
        optax.chain(optax.scale(-0.1), error_feedback(channel)), policy="leave_out"
    )

    def step(state, batch):
        (params, opt_state), _ = step_of(tx)(state, batch)
        guard: Tree = opt_state
        owed = optax.tree.get(guard, "residual")
        counts = guard.skipped, guard.left_out
        return (params, guard), {"params": params, "owed": owed, "counts": counts}

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
    """Nothing of it is lost either: the mean of residual + out grows by it."""
    _, seen = leaving_out(runner, channel)
    points = problems.flat(seen["params"], 2)[:, 0]
    points = np.concatenate([problems.flat(start())[None], points])
    owed = problems.flat(seen["owed"], 2).mean(axis=1)
    owed = np.concatenate([np.zeros_like(owed[:1]), owed])
    grown = np.diff(points + owed, axis=0)
    np.testing.assert_allclose(grown, mean_steps(points), rtol=1e-5, atol=1e-6)

    skipped, left_out = seen["counts"]
    assert skipped[-1].tolist() == [1] * WORKERS
    expected = [
        sum(k in BROKEN.get(step, []) for step in (1, 2, 4)) for k in range(WORKERS)
    ]
    assert left_out[-1].tolist() == expected


def test_in_double_precision_the_factor_is_exact():
    def tx(inner):
        return skip_nonfinite(inner, policy="leave_out")

    plain = averaged(exact())
    with jax.enable_x64(True):
        gradients = np.random.default_rng(0).normal(size=(1, 7, 20))
        expected = gradients[0, [0, 1, 3, 4, 6]].mean(axis=0)
        gradients[0, [2, 5], 3] = np.nan
        moved, _ = harness.updates(tx(plain), jnp.zeros(20), gradients)
    np.testing.assert_allclose(moved[0, 0], expected, rtol=1e-14)


def test_where_all_are_broken_all_skip():
    tx = skip_nonfinite(gmc(RATE, all_gather(top_k(0.2))), policy="leave_out")
    gradients = np.full((1, 4, 20), np.nan, np.float32)
    moved, states = harness.updates(tx, jnp.zeros(20), gradients)
    assert not moved.any()
    first, last = (jax.tree.map(lambda leaf, t=t: leaf[t], states) for t in (0, 1))
    chex.assert_trees_all_equal(last.inner, first.inner)
    assert last.skipped == 1
    assert np.all(last.left_out == 0)


@every_runner
def test_leaving_out_changes_nothing_where_all_is_finite(runner):
    """To the last bit: one factor, which is 1."""
    method = gmc(SCHEDULE, all_gather(random_block(0.2)))
    batches = targets(start(), 4)

    def run(tx):
        return drive(runner, step_of(tx), (start(), tx.init(start())), batches)[0]

    params, opt_state = run(skip_nonfinite(method, policy="leave_out"))
    expected, inner = run(method)
    chex.assert_trees_all_equal(params, expected)
    chex.assert_trees_all_equal(opt_state.inner, inner)
    assert opt_state.left_out.tolist() == [0] * WORKERS


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bits_stay_16_bits_and_finite(dtype):
    largest = jnp.finfo(dtype).max
    gradients = jnp.full((1, 4, 3), largest, dtype).at[0, 1, 0].set(jnp.nan)
    tx = skip_nonfinite(optax.identity(), policy="leave_out")
    moved, _ = harness.updates(tx, jnp.zeros(3, dtype), gradients)
    assert moved.dtype == dtype
    np.testing.assert_array_equal(moved[0, 0], largest)
    np.testing.assert_array_equal(moved[0, 1], 0)


def test_a_worker_that_is_left_out_votes_with_what_it_remembers():
    """Minus where its momentum says so, and plus where it remembers nothing."""
    gradients = np.full((2, 3, 4), -1, np.float32)
    gradients[:, 1] = 1
    gradients[1, 2] = np.nan  # It voted minus; now the others are one and one.
    for make, expected in ((gmc_jax.signum, -1), (gmc_jax.sign_sgd, 1)):
        tx = skip_nonfinite(make(1.0, majority_vote()), policy="leave_out")
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
def test_where_gradients_must_not_be_scaled_leaving_out_is_refused(inner, does):
    params = jnp.zeros(3)
    with pytest.raises(
        ValueError, match=rf"`policy` is 'leave_out'.*{does}.*skip_step"
    ):
        skip_nonfinite(inner, policy="leave_out").init(params)
    skip_nonfinite(inner).init(params)


def test_an_unknown_policy_is_refused():
    policy: Tree = "drop"
    with pytest.raises(
        ValueError, match=r"`policy` .*'skip_step', 'leave_out'.*'drop'"
    ):
        skip_nonfinite(optax.identity(), policy=policy)


def summed() -> Compressor:
    """Sends everything, and does not say that it is linear: its sums overflow."""
    return dense()._replace(linear=False)


@every_runner
@pytest.mark.parametrize("policy", ["skip_step", "leave_out"])
def test_where_finite_updates_overflow_on_the_way_all_skip(runner, policy):
    """A mean, or a sum with what is remembered, is infinite; no gradient is."""
    tx = skip_nonfinite(
        optax.chain(error_feedback(all_gather(summed())), optax.trace(0.9)),
        policy=policy,
    )

    def step(state, batch):
        params, opt_state = state
        updates, opt_state = tx.update(batch, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), {"out": updates}

    batches = np.ones((3, WORKERS, 4), np.float32)
    batches[1, 2:] = 3e38
    (params, guard), seen = drive(
        runner,
        step,
        (jnp.zeros(4), tx.init(jnp.zeros(4))),
        batches,
        replicated=lambda state: (state[0], state[1].skipped),
    )
    np.testing.assert_allclose(seen["out"][:, 0, 0], [1, 0, 1.9], rtol=1e-6)
    assert guard.skipped == 1
    assert np.all(guard.left_out == 0)
    chex.assert_tree_all_finite(guard)
    np.testing.assert_allclose(params, 2.9, rtol=1e-6)


def test_finite_gradients_whose_sum_is_infinite_are_averaged():
    gradients = np.full((1, 4, 3), 3e38, np.float32)
    tx = skip_nonfinite(averaged(exact()))
    moved, states = harness.updates(tx, jnp.zeros(3), gradients)
    np.testing.assert_allclose(moved[0], 3e38, rtol=1e-6)
    assert not states.skipped.any()


@pytest.mark.parametrize("policy", ["skip_step", "leave_out"])
@pytest.mark.parametrize("dtype", ["int8", "uint32", "bool"])
def test_what_is_not_floating_passes_as_it_is(policy, dtype):
    """Both policies take the same trees: nothing else is scaled, or can be broken."""
    tx = skip_nonfinite(optax.identity(), policy=policy)
    gradients = {"a": jnp.ones((3, 2)).at[0, 0].set(jnp.nan), "b": jnp.ones((3, 1))}
    gradients["b"] = gradients["b"].astype(dtype)
    state = tx.init({})
    moved: Tree = jax.vmap(lambda g: tx.update(g, state)[0], axis_name="workers")(
        gradients
    )
    assert moved["b"].dtype == dtype
    np.testing.assert_array_equal(moved["b"], 1 if policy == "leave_out" else 0)
    left = np.array([[0, 0], [1.5, 1.5], [1.5, 1.5]])
    np.testing.assert_array_equal(moved["a"], left if policy == "leave_out" else 0)
