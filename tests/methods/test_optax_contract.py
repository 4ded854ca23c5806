"""The contract of optax's optimizers, over all methods.

States are pytrees, `init` and `update` are pure, both work under `jit`, `optax.masked`
wraps them, and dtypes may be mixed. `test_injected` holds `optax.inject_hyperparams`.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax.core import Tree
from tests.support.factories import RIGHT, found, names_of
from tests.support.problems import tree

WORKERS = 3
METHODS = [
    name
    for name in names_of(optax.GradientTransformation)
    if found(name).__module__.startswith("gmc_jax.methods.")
]
TWO_GRADIENTS = {"katyusha_x", "svrg"}
PARAMS = tree(np.linspace(-1, 1, 6, dtype=np.float32))

every_method = pytest.mark.parametrize("name", METHODS)
every_third_method = pytest.mark.parametrize(
    "name",
    [  # The others are in the slow run.
        pytest.param(name, marks=pytest.mark.slow if place % 3 else ())
        for place, name in enumerate(METHODS)
    ],
)


@functools.cache
def method(name: str) -> optax.GradientTransformationExtraArgs:
    return optax.with_extra_args_support(found(name)(**RIGHT[name]))


def gradients(params):
    """Each worker's own, with a leading axis of workers."""
    draw = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: draw.normal(size=(WORKERS, *x.shape)).astype(x.dtype), params
    )


def on_workers(step):
    """Runs a step of one worker on all of them, from one state."""
    return jax.vmap(step, in_axes=(0, None), axis_name="workers", axis_size=WORKERS)


def update(tx, params):
    """The update of one worker; methods with two gradients a step take one twice."""

    def step(grads, state):
        return tx.update(grads, state, params, snapshot_grads=grads)

    return step


def shapes_of(tree):
    return jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf)), tree)


def test_all_methods_are_here():
    assert len(METHODS) >= 30


@every_method
def test_a_state_is_a_pytree_of_arrays_that_updates_keep(name):
    """Under `jit`, too, `init` and `update` return the same structure and dtypes."""
    tx = method(name)
    state = tx.init(PARAMS)
    leaves, structure = jax.tree.flatten(state)
    assert all(isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves)
    assert jax.tree.structure(jax.tree.unflatten(structure, leaves)) == structure
    assert shapes_of(jax.eval_shape(tx.init, PARAMS)) == shapes_of(state)

    step = on_workers(update(tx, PARAMS))
    updates, after = jax.eval_shape(step, gradients(PARAMS), state)
    of_one = functools.partial(jax.tree.map, lambda x: (x.shape[1:], x.dtype))
    assert of_one(after) == shapes_of(state)
    assert of_one(updates) == shapes_of(PARAMS)


@every_method
def test_init_and_update_are_pure(name):
    """Two traces are one program, and no tracer is left behind."""
    tx, grads = method(name), jax.tree.map(lambda x: x[0], gradients(PARAMS))
    state = tx.init(PARAMS)
    chex.assert_trees_all_equal(state, tx.init(PARAMS))
    before = jax.tree.map(np.array, (PARAMS, grads, state))

    def traced() -> str:
        # A new function each time, since JAX remembers what it has traced.
        step = update(tx, PARAMS)
        program = jax.make_jaxpr(step, axis_env=[("workers", WORKERS)])(grads, state)
        return str(program)

    with jax.checking_leaks():
        assert traced() == traced()
    chex.assert_trees_all_equal((PARAMS, grads, state), before)


@every_third_method
def test_jit_changes_nothing(name):
    """A step op by op, and one under `jit`."""
    tx, grads = method(name), gradients(PARAMS)
    step = on_workers(update(tx, PARAMS))
    state = tx.init(PARAMS)
    if name in TWO_GRADIENTS:
        ones = jax.tree.map(jnp.ones_like, PARAMS)
        state = gmc_jax.set_full_gradient(state, PARAMS, ones)
    plain, jitted = step(grads, state), jax.jit(step)(grads, state)
    chex.assert_trees_all_close(plain, jitted, rtol=1e-5, atol=1e-6)
    chex.assert_tree_all_finite(plain)


@every_third_method
def test_a_mask_leaves_the_other_leaves_alone(name):
    """The masked leaf keeps its gradient, and the other moves as if it were alone."""
    if name in TWO_GRADIENTS:
        pytest.skip("optax masks no extra arguments")
    grads, alone = gradients(PARAMS), {"bias": PARAMS["bias"]}
    masked = optax.masked(method(name), {"bias": True, "kernel": False})
    ours: tuple[Tree, Tree] = on_workers(update(masked, PARAMS))(
        grads, masked.init(PARAMS)
    )
    theirs: tuple[Tree, Tree] = on_workers(update(method(name), alone))(
        {"bias": grads["bias"]}, method(name).init(alone)
    )
    chex.assert_trees_all_equal(ours[0]["kernel"], grads["kernel"])
    chex.assert_trees_all_close(ours[0]["bias"], theirs[0]["bias"], rtol=1e-6)


@every_method
def test_dtypes_may_be_mixed(name):
    """Updates can be applied to leaves of each dtype, and states keep their dtypes."""
    params = {
        "bias": PARAMS["bias"].astype("bfloat16"),
        "kernel": PARAMS["kernel"],
        "scale": jnp.ones((), "float16"),
    }
    tx = method(name)
    state = tx.init(params)

    def step(grads, state):
        updates, state = update(tx, params)(grads, state)
        return optax.apply_updates(params, updates), state

    moved, after = jax.eval_shape(on_workers(step), gradients(params), state)
    of_one = functools.partial(jax.tree.map, lambda x: (x.shape[1:], x.dtype))
    assert of_one(moved) == shapes_of(params)
    assert of_one(after) == shapes_of(state)
