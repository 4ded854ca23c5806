"""Tests of what `simulate` and `distribute` share: donation, checks, mean metrics."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import exact
from tests.support.harness import WORKERS, every_runner, simulate
from tests.support.vector_steps import GMC, D, state_of, step_of, targets


@every_runner
def test_the_state_is_donated_and_the_users_own_arrays_are_not(runner):
    tx = gmc_jax.dmsgd_local(0.01, exact())
    mine = state_of(tx)
    before = jax.tree.map(np.array, mine)
    train, laid_out = runner(step_of(tx), mine, targets()[0])
    state, _ = train(laid_out, targets()[0])
    state, _ = train(state, targets()[1])

    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(laid_out))
    chex.assert_trees_all_equal(jax.tree.map(np.array, mine), before)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state))


@every_runner
def test_numpy_arrays_in_the_state_are_not_overwritten(runner):
    """Even where the CPU could use their memory as it is."""
    memory = np.zeros(4 * D + 64, np.uint8)
    aligned = memory[-memory.ctypes.data % 64 :][: 4 * D].view(np.float32)

    def step(state, batch):
        return 2 * state + jax.lax.pmean(batch, "workers") + 1, None

    train, state = runner(step, aligned, targets()[0])
    for _ in range(3):
        state, _ = train(state, np.zeros_like(targets()[0]))
    np.testing.assert_array_equal(state, np.full(D, 7))
    np.testing.assert_array_equal(aligned, np.zeros(D))
    gmc_jax.assert_replicated(state)


@every_runner
def test_the_step_is_traced_once_for_the_layout_and_once_for_training(runner):
    """Also with Python numbers in the state, which come back as arrays.

    `simulate` uses one trace for both.
    """
    traces = []

    def step(state, batch):
        traces.append(None)
        weights, count, rate = state
        weights = weights - rate * jax.lax.pmean(batch, "workers")
        return (weights, count + 1, rate * 0.5), None

    train, state = runner(step, (jnp.zeros(D), 0, 1.0), targets()[0])
    assert len(traces) == 1
    for batch in targets()[:3]:
        state, _ = train(state, batch)
    assert len(traces) == (1 if runner is simulate else 2)
    assert int(state[1]) == 3


@every_runner
def test_a_step_is_traced_anew_for_each_call_of_a_runner(runner):
    """Also one that reads what has changed meanwhile."""
    scale = 1.0

    def step(state, batch):
        return state + scale * jax.lax.pmean(batch.sum(), "workers"), None

    for scale in (1.0, 2.0):
        train, state = runner(step, jnp.zeros(()), np.ones((WORKERS, 1)))
        state, _ = train(state, np.ones((WORKERS, 1)))
        assert float(state) == scale


@every_runner
def test_a_step_may_be_any_callable(runner):
    """Also one that has no hash."""

    @dataclasses.dataclass
    class Step:
        rate: float

        def __call__(self, state, batch):
            return state + self.rate * jax.lax.pmean(batch.sum(), "workers"), None

    train, state = runner(Step(2.0), jnp.zeros(()), np.ones((WORKERS, 1)))
    assert float(train(state, np.ones((WORKERS, 1)))[0]) == 2


@every_runner
def test_every_batch_has_a_leading_axis_of_workers(runner):
    tx = gmc_jax.gmc(0.01, exact())
    state = state_of(tx)
    with pytest.raises(ValueError, match="leading axis of 8 workers"):
        runner(step_of(tx), state, targets(4)[0])
    train, state = runner(step_of(tx), state, targets()[0])
    with pytest.raises(ValueError, match="leading axis of 8 workers"):
        train(state, targets(4)[0])
    train(state, targets()[0])


@every_runner
def test_parameters_that_differ_under_a_synchronous_method_are_an_error(runner):
    tx = optax.apply_if_finite(gmc_jax.gmc(0.01, exact()), 3)
    state = state_of(tx)
    message = (
        r"`replicated` selects must be the same .*`state\[0\]\['bias'\]`, "
        r"`state\[0\]\['kernel'\]`.*skip_nonfinite"
    )
    with pytest.raises(ValueError, match=message):
        runner(step_of(tx), state, targets()[0], replicated=lambda state: state[0])


@every_runner
def test_replicated_accepts_a_synchronous_method(runner):
    tx = GMC
    state = state_of(tx)
    runner(step_of(tx), state, targets()[0], replicated=lambda state: state[0])
    with pytest.raises(ValueError, match=r"state\[1\]\[0\].inner.residual"):
        runner(step_of(tx), state, targets()[0], replicated=lambda state: state)


@every_runner
def test_mean_metrics_are_replicated_on_every_device(runner):
    """The kind: metrics that one process cannot read without the others.

    The state is what it is with the metrics of each.
    """

    def step(state, batch):
        new = state + jax.lax.pmean(batch, "workers")
        metrics = {
            "own": batch,
            "half": batch.astype("bfloat16"),
            "index": jax.lax.axis_index("workers"),
            "flag": jax.lax.axis_index("workers") < 2,
            "number": 2.5,
            "nothing": None,
        }
        return new, metrics

    batch = targets()[0]
    each, state = runner(step, jnp.zeros(D), batch)
    expected, rows = each(state, batch)
    mean, state = runner(step, jnp.zeros(D), batch, metrics="mean")
    state, metrics = mean(state, batch)

    np.testing.assert_array_equal(state, expected)
    for leaf in jax.tree.leaves(metrics):
        assert leaf.is_fully_replicated
        assert leaf.sharding.device_set == state.sharding.device_set
        assert leaf.dtype == np.float32
    assert metrics.pop("nothing") is None
    assert float(metrics["index"]) == (WORKERS - 1) / 2
    assert float(metrics["flag"]) == 2 / WORKERS
    assert float(metrics["number"]) == 2.5
    np.testing.assert_allclose(metrics["own"], batch.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(
        metrics["half"], np.float32(rows["half"]).mean(axis=0), atol=1e-6
    )


def test_mean_metrics_are_finite_for_any_dtype():
    """The kind: a sum that overflows, or a dtype that mixes with no other."""

    def step(state, batch):
        return state, {"large": jnp.float32(3e38), "short": jnp.float8_e4m3fn(3)}

    def keys(state, batch):
        return state, {"drawn": jax.random.key(0)}

    batch = targets()[0]
    train, state = gmc_jax.simulate(step, 0, batch, len(batch), metrics="mean")
    _, metrics = train(state, batch)
    assert metrics == {"large": np.float32(3e38), "short": 3}
    assert metrics["short"].dtype == np.float32
    train, state = gmc_jax.simulate(keys, 0, batch, len(batch), metrics="mean")
    with pytest.raises(TypeError, match=r"random keys in `metrics\['drawn'\]`"):
        train(state, batch)


@every_runner
def test_an_unknown_choice_of_metrics_is_refused(runner):
    with pytest.raises(
        ValueError, match=r"`metrics` must be one of .*'each', 'mean'.*'sum'"
    ):
        runner(step_of(GMC), state_of(), targets()[0], metrics="sum")
