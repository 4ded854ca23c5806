"""Hyper-parameters that `optax.inject_hyperparams` turns into state."""

import functools
import inspect
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import (
    accumulate,
    all_gather,
    choco_sgd,
    compressed_gossip,
    d2,
    d_psgd,
    dcd_psgd,
    double_averaging,
    exact,
    gmc,
    gossip_differences,
    gradient_tracking,
    local_sgd,
    majority_vote,
    matcha,
    no_communication,
    post_local_sgd,
    qg_dsgdm,
    sgp,
    signum,
    svrg,
    top_k,
    topologies,
)
from gmc_jax.core import Tree
from tests.support.factories import RIGHT, found, names_of
from tests.support.harness import start

RING = topologies.ring(8)
INJECTED = {
    "local_sgd": functools.partial(local_sgd, channel=exact(), period=3),
    "post_local_sgd": functools.partial(
        post_local_sgd, channel=exact(), local_from_step=2
    ),
    "double_averaging": functools.partial(
        double_averaging, channel=exact(), buffer_channel=exact(), period=3
    ),
    "signum": functools.partial(signum, channel=majority_vote(), weight_decay=0.1),
    "d_psgd": functools.partial(d_psgd, topology=RING),
    "choco_sgd": functools.partial(
        choco_sgd, channel=gossip_differences(RING, top_k(0.5), 0.5)
    ),
    "dcd_psgd": functools.partial(
        dcd_psgd, channel=compressed_gossip(RING, top_k(0.5))
    ),
    "d2": functools.partial(d2, topology=topologies.lazy(RING)),
    "gradient_tracking": functools.partial(gradient_tracking, topology=RING),
    "qg_dsgdm": functools.partial(qg_dsgdm, topology=RING),
    "matcha": functools.partial(matcha, topology=topologies.matcha(RING.edges, 1.0)),
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
    "streaming": {"period", "delay"},
    "streaming_diloco": {"period", "delay"},
    "demo": {"chunk", "kept"},
    "katyusha_x": {"learning_rate", "epoch_length", "strong_convexity"},
    "one_bit_adam": {"freeze_step"},
    "quantised_sgd": {"levels", "bucket"},
    "ternary_sgd": {"clip"},
}
FUNCTIONS = {"projection", "next_start"}  # No schedules.
OPTIONAL = {"learning_rate": 0.1, "period": 2, "strong_convexity": 0.1}
IDLE = {("slow_momentum", ".hyperparams['period']")}  # Asked where rates change.
MAY_BE_ZERO = {"decay", "detach", "weight_decay", "learning_rate"}
PARAMS = {"a": jnp.ones(2), "b": jnp.ones((2, 1), jnp.bfloat16)}


def is_method(name: str) -> bool:
    return found(name).__module__.startswith("gmc_jax.methods")


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
    if "random_length" in parameters:
        given["random_length"] = True
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


@pytest.mark.parametrize("kind", ["zero", "float64"])
@pytest.mark.parametrize("name", names_of(optax.GradientTransformation))
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


ALONE = {
    "gmc": functools.partial(gmc, 0.1, no_communication()),
    "local_sgd": functools.partial(local_sgd, 0.1, no_communication(), period=2),
    "signum": functools.partial(signum, 0.1, no_communication()),
}


@pytest.mark.parametrize("name", ALONE)
def test_an_injected_momentum_of_0_is_none_and_may_become_one(name):
    """None, the literal 0 and an injected 0 are the same steps.

    One that is set in the state between two steps counts from then on, as in an
    optimizer that was made with it.
    """
    factory, params = ALONE[name], {"a": jnp.array([1.0, -2.0])}
    tx = optax.inject_hyperparams(factory)(momentum=0.0)
    plain = [factory(momentum=None), factory(momentum=0)]
    state: Tree = tx.init(params)
    states = [one.init(params) for one in plain]
    for factor in (1.0, -2.0):
        grads = jax.tree.map(lambda x, factor=factor: factor * x, params)
        out, state = tx.update(grads, state, params)
        for place, one in enumerate(plain):
            same, states[place] = one.update(grads, states[place], params)
            chex.assert_trees_all_equal(same, out)
    state.hyperparams["momentum"] = jnp.float32(0.5)
    with_it: Tree = tx.update(params, state, params)[0]
    expected, _ = factory(momentum=0.5).update(params, state.inner_state, params)
    chex.assert_trees_all_close(with_it, expected, rtol=1e-6)
    without: Tree = plain[0].update(params, states[0], params)[0]
    assert name == "signum" or np.any(with_it["a"] != without["a"])


@pytest.mark.parametrize("name", SHAPES)
def test_what_shapes_the_program_is_not_injected(name):
    """It is refused by name, with the way to say so, where it is traced."""
    for argument in SHAPES[name]:
        tx = injected(name, SHAPES[name] - {argument})
        with pytest.raises(
            TypeError, match=rf"`{argument}` must be known .* `static_args`"
        ):
            traced(tx, tx.init(PARAMS))


def test_neither_is_a_ratio_nor_a_function():
    def compressed(learning_rate, ratio):
        return gmc(learning_rate, all_gather(top_k(ratio)))

    tx = optax.inject_hyperparams(compressed)(0.1, 0.5)
    with pytest.raises(TypeError, match=r"`ratio` must be known .* `static_args`"):
        traced(tx, tx.init(PARAMS))
    tx = optax.inject_hyperparams(compressed, static_args="ratio")(0.1, 0.5)
    traced(tx, tx.init(PARAMS))
    tx = optax.inject_hyperparams(svrg)(0.1, exact(), epoch_length=2, projection=abs)
    with pytest.raises(TypeError, match=r"`projection` must be .* `static_args`"):
        tx.init(PARAMS)


def test_what_was_counted_past_an_injected_period_is_done_at_once():
    """A period that becomes shorter than what was counted does not wait for ever."""
    factory = functools.partial(accumulate, optax.sgd(1.0))
    tx = optax.inject_hyperparams(factory)(period=5)
    state: Tree = tx.init(jnp.ones(2))
    for _ in range(4):
        _, state = tx.update(jnp.ones(2), state)
    state.hyperparams["period"] = jnp.int32(2)
    out: Tree = tx.update(jnp.ones(2), state)[0]
    assert np.all(out)


@pytest.mark.parametrize(
    "name", [name for name in names_of(optax.GradientTransformation) if is_method(name)]
)
def test_every_method_says_what_may_be_injected(name):
    text = " ".join((inspect.getdoc(found(name)) or "").split())
    assert re.search("hyperparams`,? (which )?may inject|may be injected by", text)
