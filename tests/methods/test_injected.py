"""Hyper-parameters that `optax.inject_hyperparams` turns into state."""

import functools
import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import (
    d2,
    d_psgd,
    double_averaging,
    exact,
    gradient_tracking,
    local_sgd,
    majority_vote,
    post_local_sgd,
    sgp,
    signum,
    topologies,
)
from tests.factories import RIGHT, found
from tests.runners import start

RING = topologies.ring(8)
INJECTED = {
    "local_sgd": functools.partial(local_sgd, channel=exact(), period=3),
    "post_local_sgd": functools.partial(post_local_sgd, channel=exact(), start=2),
    "double_averaging": functools.partial(
        double_averaging, channel=exact(), buffer_channel=exact(), period=3
    ),
    "signum": functools.partial(signum, channel=majority_vote(), weight_decay=0.1),
    "d_psgd": functools.partial(d_psgd, topology=RING),
    "d2": functools.partial(d2, topology=topologies.lazy(RING)),
    "gradient_tracking": functools.partial(gradient_tracking, topology=RING),
    "sgp": functools.partial(sgp, topology=RING),
}


def moved(tx):
    """How far one step leads."""

    @functools.partial(jax.vmap, axis_name="workers", in_axes=None, axis_size=8)
    def step(params, state):
        return tx.update(jax.tree.map(jnp.ones_like, params), state, params)[0]

    return jax.jit(step)(start(), tx.init(start()))


@pytest.mark.parametrize("name", INJECTED)
def test_injected_rates_and_momenta_change_nothing(name):
    factory = INJECTED[name]
    static = {"delay"} if name == "sgp" else set()
    injected = optax.inject_hyperparams(factory, static_args=static)(
        learning_rate=0.1, momentum=0.8
    )
    step = moved(injected)
    plain = moved(factory(learning_rate=0.1, momentum=0.8))
    chex.assert_trees_all_close(step, plain, rtol=1e-5)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(step))


# Every factory of transformations, and all of its numbers.

SHAPES = {
    "sgp": {"delay"},
    "katyusha_x": {"learning_rate", "epoch_length", "strong_convexity"},
}
FUNCTIONS = {"projection", "couple"}  # No schedules.
OPTIONAL = {"learning_rate": 0.1, "period": 2, "strong_convexity": 0.1}
IDLE = {("slow_momentum", ".hyperparams['period']")}  # Asked where rates change.
MAY_BE_ZERO = {"decay", "detach", "weight_decay", "learning_rate"}
PARAMS = {"a": jnp.ones(2), "b": jnp.ones((2, 1), jnp.bfloat16)}


def transformations() -> list[str]:
    return [
        name
        for name, right in RIGHT.items()
        if isinstance(found(name)(**right), optax.GradientTransformation)
    ]


def numbers(name: str, zero: bool) -> dict[str, float]:
    """All numeric arguments of a factory, 0 where they may be."""
    given = dict(RIGHT[name])
    for argument, parameter in inspect.signature(found(name)).parameters.items():
        given.setdefault(argument, parameter.default)
        if given[argument] is None and argument in OPTIONAL:
            given[argument] = OPTIONAL[argument]
    kept = {
        argument: value
        for argument, value in given.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return {
        argument: 0.0
        if zero and (argument in MAY_BE_ZERO or argument.endswith("momentum"))
        else value
        for argument, value in kept.items()
    }


def injected(name: str, shapes: set[str], zero: bool = False, **options):
    """The factory with all its numbers injected, but for those that shape it."""
    factory = found(name)
    parameters = inspect.signature(factory).parameters.keys()
    given = RIGHT[name] | numbers(name, zero)
    if "drawn" in parameters:
        given["drawn"] = True
    static = shapes | FUNCTIONS & parameters
    return optax.inject_hyperparams(factory, static_args=static, **options)(**given)


def traced(tx, state):
    """The program of an update of one of three workers, and the shapes it returns."""

    def update(state):
        grads = PARAMS
        return tx.update(grads, state, PARAMS, snapshot_grads=grads)

    axis = [("workers", 3)]
    return jax.make_jaxpr(update, axis_env=axis, return_shape=True)(state)


def shapes_of(tree):
    return jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf)), tree)


def takes_effect(program, place: int) -> bool:
    """Whether something that a program returns depends on its input at a place."""
    program = program.jaxpr
    depend = {program.invars[place]}
    for equation in program.eqns:
        if any(not hasattr(v, "val") and v in depend for v in equation.invars):
            depend.update(equation.outvars)
    returned = [v for v in program.outvars if not hasattr(v, "val")]
    return any(v in depend for v in returned if v != program.invars[place])


@pytest.mark.parametrize("kind", ["zero", "not zero", "float64"])
@pytest.mark.parametrize("name", transformations())
def test_all_numbers_of_all_factories_can_be_injected(name, kind):
    """The structure of a state depends on no value that `inject_hyperparams` injects.

    Values are concrete in `init`, tracers in a jitted `init` and in `update`; states
    are of one structure, with the same shapes and dtypes, in all of them, whatever the
    dtype of a value. And every value takes effect: another one is another update.
    """
    double = kind == "float64"
    with jax.enable_x64(double):
        options = {"hyperparam_dtype": jnp.float64} if double else {}
        tx = injected(name, SHAPES.get(name, set()), kind == "zero", **options)
        state = tx.init(PARAMS)
        jitted = jax.eval_shape(tx.init, PARAMS)
        program, (_, after) = traced(tx, state)
        assert shapes_of(jitted) == shapes_of(state)
        assert shapes_of(after) == shapes_of(state)
    for place, (path, _) in enumerate(jax.tree_util.tree_leaves_with_path(state)):
        where = jax.tree_util.keystr(path)
        if where.startswith(".hyperparams[") and (name, where) not in IDLE:
            assert takes_effect(program, place), where


def test_what_shapes_the_program_is_not_injected():
    tx = optax.inject_hyperparams(functools.partial(sgp, topology=RING))(0.1, delay=2)
    with pytest.raises(TypeError, match=r"`delay` shapes .* `static_args`"):
        jax.jit(lambda state: tx.update(start(), state, start()))(tx.init(start()))
