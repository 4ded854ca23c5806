"""Tests of evaluation at the virtual iterate: parameters plus the mean residual."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import (
    accumulate,
    all_gather,
    at_virtual_iterate,
    averaged,
    detached,
    error_feedback,
    evaluate,
    exact,
    query,
    skip_nonfinite,
    top_k,
)
from gmc_jax.core import Tree
from tests.support import harness, problems
from tests.support.harness import WORKERS, close, simulate, start, step_of, targets

RATE = 0.1


def method() -> optax.GradientTransformationExtraArgs:
    return optax.chain(
        optax.scale(-RATE), detached(error_feedback(all_gather(top_k(0.2))), 0.5)
    )


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: optax.chain(optax.clip(10.0), tx),
        lambda tx: skip_nonfinite(accumulate(tx, 1)),
        lambda tx: optax.masked(tx, {"bias": True, "kernel": True}),
    ],
    ids=["chain", "guard", "masked"],
)
def test_its_state_is_found_inside_any_other(wrap):
    tx = wrap(at_virtual_iterate(method()))
    batch = jax.tree.map(lambda leaf: leaf[0], targets(start(), 1))
    state, step = (start(), tx.init(start())), step_of(tx)
    layout = gmc_jax.layout(step, state, batch, WORKERS)
    train, state = simulate(step, state, batch)
    (params, opt_state), _ = train(state, batch)
    residuals = optax.tree.get(opt_state, "residual")
    expected = jax.tree.map(lambda x, e: x + e.mean(axis=0), params, residuals)
    close(evaluate(opt_state, params, layout), expected)
    assert np.abs(problems.flat(expected) - problems.flat(params)).max() > 0.01


def test_it_changes_neither_the_updates_nor_where_gradients_are_taken():
    gradients = targets(start(), 4)
    ours, states = harness.updates(at_virtual_iterate(method()), start(), gradients)
    theirs, inner = harness.updates(method(), start(), gradients)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    jax.tree.map(np.testing.assert_array_equal, states.inner, inner)
    own = jax.tree.map(lambda leaf: leaf[-1], states)
    own = jax.tree.map(lambda leaf: leaf[0] if leaf.ndim else leaf, own)
    close(query(own, start()), query(own.inner, start()))
    gap = problems.flat(query(own, start())) - problems.flat(start())
    assert np.abs(gap).max() > 0.01


def test_masked_leaves_are_evaluated_at_the_parameters():
    tx = at_virtual_iterate(
        optax.masked(error_feedback(exact()), {"bias": True, "kernel": False})
    )
    params = start()
    state: Tree = tx.init(params)
    feedback = state.inner.inner_state
    residuals = {**feedback.residual, "bias": jnp.ones(4)}
    inner = state.inner._replace(inner_state=feedback._replace(residual=residuals))
    point = state._replace(inner=inner).evaluate(params)
    close(point, {"bias": params["bias"] + 1, "kernel": params["kernel"]})


def test_the_point_keeps_the_types_of_the_parameters():
    """The residual of bfloat16 parameters is float32."""
    params = start("bfloat16")
    state: Tree = at_virtual_iterate(method()).init(params)
    point = state.evaluate(params)
    jax.tree.map(np.testing.assert_array_equal, point, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(point)} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize(
    "inner",
    [
        averaged(exact()),
        optax.chain(error_feedback(exact()), error_feedback(exact())),
    ],
    ids=["none", "two"],
)
def test_there_must_be_one_residual(inner):
    with pytest.raises(
        ValueError, match=r"`at_virtual_iterate` must contain one `error_"
    ):
        at_virtual_iterate(inner).init(jnp.ones(2))
