"""Tests of the point of the next gradient."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import (
    accumulate,
    all_gather,
    detached,
    error_feedback,
    exact,
    gmc,
    query,
    skip_nonfinite,
    top_k,
)
from gmc_jax.core import Tree
from tests.support import harness, problems

WORKERS, D = 4, 20
CHANNEL = all_gather(top_k(0.2))


def start():
    return problems.tree(np.linspace(-2, 2, D, dtype=np.float32))


def pulls(steps: int):
    """Gradients of all steps and workers, in the structure of the parameters."""
    draw = np.random.default_rng(0)
    return jax.tree.map(
        lambda w: np.float32(draw.normal(size=(steps, WORKERS, *w.shape))), start()
    )


def asked(tx, steps: int = 4):
    """The parameters, the points and the states of `tx` after each step.

    Leading axes of steps and workers, as the metrics of a step come back.
    """

    def step(state, batch):
        params, opt_state = state
        updates, opt_state = tx.update(batch, opt_state, params)
        params = optax.apply_updates(params, updates)
        seen = params, query(opt_state, params), opt_state
        return (params, opt_state), seen

    _, seen = harness.history(step, (start(), tx.init(start())), pulls(steps))
    return seen


def residual_of(states) -> Tree:
    return optax.tree.get(states, "residual")


PLAIN = {
    "sgd": optax.sgd(0.1, momentum=0.9),
    "adam": optax.adam(0.1),
    "gmc": gmc(0.1, CHANNEL),
    "dgc": gmc_jax.dgc(0.1, CHANNEL),
    "guarded": skip_nonfinite(accumulate(gmc(0.1, CHANNEL), 2)),
    "injected": optax.inject_hyperparams(optax.sgd)(0.1),
    "partition": optax.partition(
        {"a": optax.sgd(0.1), "b": gmc(0.1, CHANNEL)}, {"bias": "a", "kernel": "b"}
    ),
}


@pytest.mark.parametrize("method", PLAIN)
def test_most_methods_take_gradients_at_the_parameters(method):
    params = start()
    assert query(PLAIN[method].init(params), params) is params
    assert query((), params) is params


LAMBDA, RATE = 0.5, 0.1


def anticipating():
    """In units of gradients, as in GMC+: the rate scales the residual."""
    return detached(error_feedback(CHANNEL), LAMBDA, RATE)


def in_steps():
    """In units of steps, as in DEF: signed as updates are."""
    return optax.chain(optax.scale(-RATE), detached(error_feedback(CHANNEL), LAMBDA))


WRAPPED = {
    "alone": anticipating(),
    "chain": optax.chain(
        optax.clip(10.0), optax.chain(anticipating(), optax.scale(-0.1))
    ),
    "with extra arguments": optax.with_extra_args_support(anticipating()),
    "MultiSteps": optax.MultiSteps(anticipating(), 1).gradient_transformation(),
    "accumulate": accumulate(anticipating(), 1),
    "guard": skip_nonfinite(anticipating()),
    "under momentum": gmc_jax.global_momentum(anticipating(), 0.9, RATE),
    "masked nowhere": optax.masked(anticipating(), {"bias": True, "kernel": True}),
    "injected": optax.inject_hyperparams(
        lambda learning_rate: detached(error_feedback(CHANNEL), LAMBDA, learning_rate)
    )(learning_rate=RATE),
}


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_a_detached_state_is_found_inside_any_other(wrapper):
    params, points, states = asked(WRAPPED[wrapper])
    residual = residual_of(states)
    expected = jax.tree.map(lambda w, e: w - LAMBDA * RATE * e, params, residual)
    chex.assert_trees_all_close(points, expected, rtol=1e-5, atol=1e-6)
    # Everyone's own point is elsewhere.
    gaps = problems.flat(jax.tree.map(np.subtract, points, params), leading=2)
    assert (np.abs(gaps).max(axis=-1) > 0.01).all()
    assert np.abs(gaps[:, 0] - gaps[:, 1]).max() > 0.01


def test_a_residual_in_units_of_steps_is_added_unscaled():
    params, points, states = asked(in_steps())
    expected = jax.tree.map(lambda w, e: w + LAMBDA * e, params, residual_of(states))
    chex.assert_trees_all_close(points, expected, rtol=1e-5, atol=1e-6)


def test_the_first_gradient_is_taken_at_the_parameters():
    params = start()
    point = query(anticipating().init(params), params)
    chex.assert_trees_all_equal(point, params)


@pytest.mark.parametrize(
    ("wrap", "moved"),
    [
        (lambda tx: optax.masked(tx, {"bias": False, "kernel": True}), ["kernel"]),
        (
            lambda tx: optax.partition(
                {"moved": tx, "dense": gmc_jax.averaged(exact())},
                {"bias": "moved", "kernel": "dense"},
            ),
            ["bias"],
        ),
        (
            lambda tx: optax.partition(
                {"one": tx, "other": tx}, {"bias": "one", "kernel": "other"}
            ),
            ["bias", "kernel"],
        ),
    ],
    ids=["masked", "partition", "partition of two"],
)
def test_masked_leaves_stay_at_the_parameters(wrap, moved):
    params, points, states = asked(wrap(anticipating()))
    for name in ("bias", "kernel"):
        gap = np.abs(points[name] - params[name]).max()
        assert (gap > 0.01) == (name in moved), name
    if moved == ["kernel"]:
        residuals = residual_of(states)["kernel"]
        expected = params["kernel"] - LAMBDA * RATE * residuals
        np.testing.assert_allclose(points["kernel"], expected, rtol=1e-5, atol=1e-6)


def test_the_point_keeps_the_types_of_the_parameters():
    """The residual of bfloat16 parameters is float32."""
    params = jax.tree.map(lambda w: w.astype("bfloat16"), start())
    state = anticipating().init(params)
    point = query(state, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(point, params)


@gmc_jax.with_hooks
class Shifted(NamedTuple):
    """A state from elsewhere that takes its gradient away from the parameters."""

    by: float

    def query(self, params):
        return jax.tree.map(lambda w: 2 * w + self.by, params)


def test_all_states_with_a_query_are_called_in_order():
    params = start()
    states = (optax.EmptyState(), {"one": Shifted(1.0), "two": [Shifted(10.0)]})
    expected = jax.tree.map(lambda w: 2 * (2 * w + 1) + 10, params)
    chex.assert_trees_all_close(query(states, params), expected)


def test_a_wrapper_that_changes_the_structure_is_named():
    params = {"a": jnp.ones(3), "b": jnp.ones(2)}
    tx = optax.flatten(gmc_jax.def_sgd(0.1, all_gather(top_k(0.5))))
    with pytest.raises(ValueError, match=r"structure of `params`.*optax.flatten"):
        query(tx.init(params), params)
