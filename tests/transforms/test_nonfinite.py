"""Tests of what both guards against NaN and Inf do."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import (
    Compressor,
    all_gather,
    averaged,
    dense,
    error_feedback,
    exact,
    leave_out_nonfinite,
    skip_nonfinite,
)
from gmc_jax.core import Tree
from tests.support import harness
from tests.support.harness import WORKERS, drive, every_runner

GUARDS = [skip_nonfinite, leave_out_nonfinite]
every_guard = pytest.mark.parametrize("guard", GUARDS, ids=["skip", "leave_out"])


@every_guard
def test_a_leafless_tree_is_finite(guard):
    tx = guard(optax.identity())
    state = tx.init({})
    states: Tree = jax.vmap(
        lambda batch: tx.update({}, state)[1], axis_name="workers", out_axes=None
    )(jnp.ones(3))
    assert states.skipped == 0


@every_guard
def test_outside_the_axis_the_error_says_how_to_get_inside(guard):
    tx = guard(optax.sgd(0.1))
    params = jnp.ones(2)
    pattern = rf"`{guard.__name__}` needs .*'workers'.*`gmc_jax.simulate`"
    with pytest.raises(NameError, match=pattern):
        tx.update(params, tx.init(params))


@pytest.mark.parametrize(
    ("guard", "expected", "skipped"),
    [(skip_nonfinite, [0, 0], [1, 1]), (leave_out_nonfinite, [2, 0], [0, 0])],
)
def test_the_axis_may_have_another_name(guard, expected, skipped):
    tx = guard(optax.identity(), axis_name="replicas")
    state = tx.init(jnp.zeros(()))
    gradients = jnp.array([1.0, jnp.nan])
    out: Tree = jax.vmap(lambda g: tx.update(g, state), axis_name="replicas")(gradients)
    moved, states = out
    assert moved.tolist() == expected
    assert states.skipped.tolist() == skipped


def summed() -> Compressor:
    """Sends everything, and does not say that it is linear: its sums overflow."""
    return dense()._replace(linear=False)


@every_runner
@every_guard
def test_where_finite_updates_overflow_on_the_way_all_skip(runner, guard: Callable):
    """A mean, or its sum with a momentum, is infinite; no gradient is."""
    tx = guard(optax.chain(error_feedback(all_gather(summed())), optax.trace(0.9)))

    def step(state, batch):
        params, opt_state = state
        updates, opt_state = tx.update(batch, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), {"out": updates}

    batches = np.ones((3, WORKERS, 4), np.float32)
    batches[1, 2:] = 3e38
    (params, state), seen = drive(
        runner,
        step,
        (jnp.zeros(4), tx.init(jnp.zeros(4))),
        batches,
        replicated=lambda state: (state[0], state[1].skipped),
    )
    np.testing.assert_allclose(seen["out"][:, 0, 0], [1, 0, 1.9], rtol=1e-6)
    assert state.skipped == 1
    assert not np.any(getattr(state, "left_out", 0))
    chex.assert_tree_all_finite(state)
    np.testing.assert_allclose(params, 2.9, rtol=1e-6)


@every_guard
def test_finite_gradients_whose_sum_is_infinite_are_averaged(guard):
    gradients = np.full((1, 4, 3), 3e38, np.float32)
    tx = guard(averaged(exact()))
    moved, states = harness.updates(tx, jnp.zeros(3), gradients)
    np.testing.assert_allclose(moved[0], 3e38, rtol=1e-6)
    assert not states.skipped.any()


@pytest.mark.parametrize(
    ("guard", "floats", "others"),
    [
        (skip_nonfinite, np.zeros((3, 2)), 0),
        (leave_out_nonfinite, [[0, 0], [1.5, 1.5], [1.5, 1.5]], 1),
    ],
    ids=["skip", "leave_out"],
)
@pytest.mark.parametrize("dtype", ["int8", "uint32", "bool"])
def test_only_floats_are_scaled_or_can_be_nonfinite(guard, floats, others, dtype):
    """Both guards take the same trees."""
    tx = guard(optax.identity())
    gradients = {"a": jnp.ones((3, 2)).at[0, 0].set(jnp.nan), "b": jnp.ones((3, 1))}
    gradients["b"] = gradients["b"].astype(dtype)
    state = tx.init({})
    moved: Tree = jax.vmap(lambda g: tx.update(g, state)[0], axis_name="workers")(
        gradients
    )
    assert moved["b"].dtype == dtype
    np.testing.assert_array_equal(moved["b"], others)
    np.testing.assert_array_equal(moved["a"], floats)
