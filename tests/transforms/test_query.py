"""Tests of the point of the next gradient, and of the point of evaluation."""

import dataclasses
from typing import Any, NamedTuple, cast

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gmc_jax
from gmc_jax import (
    accumulate,
    all_gather,
    average_workers,
    detached,
    error_feedback,
    evaluate,
    exact,
    gmc,
    query,
    skip_nonfinite,
    top_k,
    topologies,
)
from gmc_jax.core import Tree
from gmc_jax.transforms.sync_hooks import sync_weighted
from tests.support import problems
from tests.support.runners import step_of

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

    _, seen = problems.drive(step, (start(), tx.init(start())), pulls(steps))
    return seen


def residual_of(states) -> Tree:
    return optax.tree.get(states, "residual")


# Query.

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


# Evaluate and average_workers.


@gmc_jax.with_hooks
class Centred(NamedTuple):
    """A state whose model is evaluated at the parameters minus a mean."""

    offset: Tree

    def evaluate(self, params):
        return jax.tree.map(jnp.subtract, params, self.offset)


@flax.struct.dataclass
class Training:
    """A state like Flax's `TrainState`, with batch statistics."""

    step: int
    params: Tree
    opt_state: Tree
    stats: Tree


def laid_out(change, state):
    """A layout, and a state of random numbers in it."""
    batch = np.zeros((WORKERS, 3), np.float32)
    layout = gmc_jax.layout(lambda s, b: (change(s, b), None), state, batch, WORKERS)
    draw = np.random.default_rng(0)
    random = jax.tree.map(
        lambda leaf: jnp.asarray(draw.normal(size=leaf.shape) * 9).astype(leaf.dtype),
        layout.lay_out(state),
    )
    return layout, random


def own(tree, batch):
    return jax.tree.map(lambda leaf: leaf + batch[0].astype(leaf.dtype), tree)


def mean_of(tree):
    return jax.tree.map(lambda leaf: np.mean(leaf, axis=0), tree)


def close(one, other):
    chex.assert_trees_all_close(one, other, rtol=1e-5, atol=1e-5)


def synchronous():
    tx = gmc(0.1, CHANNEL)

    def change(state, batch):
        grads = own(jax.tree.map(jnp.zeros_like, state.params), batch)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        stats = own(state.stats, batch)
        return Training(state.step + 1, params, opt_state, stats)

    stats = {"mean": jnp.zeros(3), "count": jnp.int32(0)}
    return laid_out(change, Training(0, start(), tx.init(start()), stats))


def test_synchronous_methods_are_evaluated_at_the_parameters():
    layout, state = synchronous()
    evaluated = evaluate(state.opt_state, state.params, layout)
    chex.assert_trees_all_equal(evaluated, state.params)
    chex.assert_trees_all_equal(average_workers(state.params, layout), state.params)


def test_batch_statistics_are_averaged():
    layout, state = synchronous()
    averages = average_workers(state.stats, layout)
    assert averages["mean"].shape == (3,)
    close(averages["mean"], np.mean(state.stats["mean"], axis=0))
    assert averages["count"].dtype == np.int32
    assert averages["count"] == np.round(np.mean(state.stats["count"]))


def test_a_whole_state_is_averaged():
    layout, state = synchronous()
    averages = average_workers(state, layout)
    chex.assert_trees_all_equal_shapes_and_dtypes(averages, layout.shapes)
    chex.assert_trees_all_equal(averages.params, state.params)
    close(residual_of(averages.opt_state), mean_of(residual_of(state.opt_state)))


def local():
    """Parameters that differ, as in local methods, and are evaluated off their mean."""

    def change(state, batch):
        params, (offset,) = state
        return own(params, batch), (Centred(own(offset.offset, batch)),)

    offset = jax.tree.map(lambda w: w + 1, start())
    return laid_out(change, (start(), (Centred(offset),)))


def test_parameters_that_differ_are_evaluated_at_their_mean():
    layout, (params, opt_state) = local()
    close(average_workers(params, layout.of(lambda s: s[0])), mean_of(params))
    close(evaluate((), params, layout.of(lambda s: s[0])), mean_of(params))
    expected = jax.tree.map(np.subtract, mean_of(params), mean_of(opt_state[0].offset))
    close(evaluate(opt_state, params, layout), expected)


def test_a_layout_finds_by_shape_which_leaves_differ():
    """The bias differs between workers, the kernel does not."""

    def change(state, batch):
        return {**state, "bias": own(state["bias"], batch)}

    layout, params = laid_out(change, start())
    evaluated = evaluate((), params, layout)
    close(evaluated["bias"], np.mean(params["bias"], axis=0))
    chex.assert_trees_all_equal(evaluated["kernel"], params["kernel"])


def test_several_trees_of_one_form_may_share_a_layout():
    """Parameters and their average, or an anchor: all have one layout."""

    def change(state, batch):
        return (own(state[0], batch), own(state[1], batch))

    layout, state = laid_out(change, (start(), start()))
    close(average_workers(state[1], layout), mean_of(state[1]))


def ambiguous():
    """A shared matrix with a row for each worker, and a row of each worker's own."""

    def change(state, batch):
        return {"own": own(state["own"], batch), "same": state["same"]}

    return laid_out(change, {"own": jnp.zeros(3), "same": jnp.zeros((WORKERS, 3))})


def test_trees_with_the_same_shapes_and_two_layouts_are_an_error():
    layout, state = ambiguous()
    message = r"`layout` must say .* several trees .*`layout.of\(lambda state: ...\)`"
    for fn in (lambda x: average_workers(x, layout), lambda x: evaluate((), x, layout)):
        with pytest.raises(ValueError, match=message):
            fn(state["own"])
    one = average_workers(state["own"], layout.of(lambda s: s["own"]))
    close(one, np.mean(state["own"], axis=0))
    other = average_workers(state["same"], layout.of(lambda s: s["same"]))
    chex.assert_trees_all_equal(other, state["same"])


@pytest.mark.parametrize(
    "tree",
    [
        {"bias": jnp.zeros(4)},
        {"bias": jnp.zeros(4), "kernel": jnp.zeros((2, 9))},
        {"bias": jnp.zeros((3, 4)), "kernel": jnp.zeros((3, 2, 8))},
        [jnp.zeros(4), jnp.zeros((2, 8))],
        jnp.zeros(7),
    ],
    ids=["part", "other shapes", "other workers", "other structure", "a leaf"],
)
def test_a_tree_outside_the_layout_is_an_error(tree):
    layout, _ = synchronous()
    message = "`layout` must say .* for 4 workers holds no tree.* layout of the step"
    with pytest.raises(ValueError, match=message):
        average_workers(tree, layout)
    with pytest.raises(ValueError, match=message):
        evaluate((), tree, layout)


@pytest.mark.parametrize("runner", ["simulate", "distribute"])
def test_a_trained_state_is_evaluated(runner):
    """On one device, and over eight devices."""

    def step(state, batch):
        params, stats = state
        gap = jax.tree.map(lambda w: w - batch[0], params)
        mean = jax.tree.map(lambda g: jax.lax.pmean(g, "workers"), gap)
        params = jax.tree.map(lambda w, g: w - 0.1 * g, params, mean)
        return (params, {"seen": stats["seen"] + batch}), None

    state = start(), {"seen": jnp.zeros(3)}
    batch = np.arange(24, dtype=np.float32).reshape(8, 3)
    layout = gmc_jax.layout(step, state, batch, 8)
    if runner == "simulate":
        train, state = gmc_jax.simulate(step, state, batch, 8)
    else:
        train, state = gmc_jax.distribute(step, state, batch)
    (params, stats), _ = train(state, batch)
    chex.assert_trees_all_equal(evaluate((), params, layout), params)
    close(average_workers(stats, layout)["seen"], batch.mean(axis=0))


class Attention(NamedTuple):
    """Parameters with fields that have the names of hooks."""

    query: jax.Array
    evaluate: jax.Array


def test_parameters_may_be_called_query_and_evaluate():
    params = Attention(jnp.ones(3), jnp.zeros(2))
    tx = gmc_jax.def_a(0.1, all_gather(top_k(0.5)))
    state = tx.init(params)
    chex.assert_trees_all_equal(query(state, params), params)
    kept = params, state
    layout = gmc_jax.Layout(
        2,
        "workers",
        differs=jax.tree.map(lambda leaf: False, kept),
        shapes=jax.eval_shape(lambda: kept),
    )
    chex.assert_trees_all_equal(evaluate(state, params, layout), params)


class Hooked:
    """Methods of a model that have the names of hooks."""

    def query(self, *args):
        raise AssertionError

    def evaluate(self, x):
        raise AssertionError

    def sync_weighted(self, *args):
        raise AssertionError

    def on_sync(self, *args):
        raise AssertionError

    def conserved(self):
        raise AssertionError


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Dataclass(Hooked):
    """A model as a dataclass."""

    w: jax.Array


@jax.tree_util.register_pytree_node_class
class Module(Hooked):
    """A model as Equinox registers them."""

    def __init__(self, w):
        self.w = w

    def tree_flatten(self):
        return (self.w,), None

    @classmethod
    def tree_unflatten(cls, aux, children):
        del aux
        return cls(*children)


class Linear(nnx.Linear, Hooked):
    """A model of Flax NNX."""


UNEVEN = topologies.pushing(np.triu(np.ones((4, 4))) + np.eye(4, k=-1))
HOOKED = {
    "gmc_plus": lambda: gmc_jax.gmc_plus(0.1, CHANNEL),
    "def_a": lambda: gmc_jax.def_a(0.1, CHANNEL),
    "slowmo": lambda: gmc_jax.slowmo(
        optax.adam(0.1), exact(), buffers=gmc_jax.average_buffers(exact())
    ),
    "slowmo over sgp": lambda: gmc_jax.slowmo(
        gmc_jax.sgp(0.1, UNEVEN, momentum=0.9, delay=1),
        exact(),
        buffers=gmc_jax.reset_buffers(),
    ),
}


@pytest.mark.parametrize("method", HOOKED)
@pytest.mark.parametrize(
    "model",
    [
        Dataclass(jnp.ones(3)),
        Module(jnp.ones(3)),
        Linear(3, 2, rngs=nnx.Rngs(0)),
    ],
    ids=["dataclass", "module", "nnx"],
)
def test_parameters_may_be_a_model_with_methods_of_the_same_names(model, method):
    """States looked up by a bare name: momenta and residuals are of the model's class.

    A call of one of its methods would fail, and so it would where the trace alone runs.
    """
    tx = HOOKED[method]()
    step, state = step_of(tx), (model, tx.init(model))
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf] * WORKERS), model)
    layout = gmc_jax.layout(step, state, batch, WORKERS)
    params, opt_state = kept = layout.lay_out(state)
    chex.assert_trees_all_close(evaluate(opt_state, params, layout), model)
    resized, _ = gmc_jax.resize(kept, layout, 2)
    assert type(resized) is type(model)


def test_only_classes_with_hooks_are_marked():
    with pytest.raises(TypeError, match=r"with one of the methods \['query', .*Attent"):
        gmc_jax.with_hooks(Attention)
    with pytest.raises(TypeError, match="`state` must be a class"):
        gmc_jax.with_hooks(cast(Any, Shifted(1.0)))


BRANCHES = {"base": {"a": jnp.ones(3), "b": jnp.ones(2)}, "lora": {"a": jnp.ones(3)}}
DEF_A = gmc_jax.def_a(0.1, CHANNEL)


def of_a_branch(tx):
    """Labels of whole branches, as `optax.partition` takes them."""
    return optax.partition({"f": optax.sgd(0.1), "t": tx}, {"base": "f", "lora": "t"})


@pytest.mark.parametrize(
    ("tx", "ask"),
    [
        (DEF_A, lambda state: query(state, BRANCHES)),
        (
            gmc_jax.at_virtual_iterate(DEF_A),
            lambda state: evaluated_at(state, BRANCHES),
        ),
        (
            gmc_jax.svrg(0.1, exact(), epoch_length=2),
            lambda s: evaluated_at(s, BRANCHES),
        ),
        (gmc_jax.sgp(0.1, UNEVEN), lambda state: sync_weighted(BRANCHES, state)),
    ],
    ids=["query", "at_virtual_iterate", "epochs", "sync_weighted"],
)
def test_labels_may_be_of_whole_branches(tx, ask):
    """`optax.partition` may mask whole branches of a tree."""
    state = of_a_branch(tx).init(BRANCHES)
    moved = jax.tree.map(lambda leaf: jnp.full_like(leaf, 2), state)
    point = ask(moved)
    chex.assert_trees_all_equal(point["base"], BRANCHES["base"])
    chex.assert_trees_all_equal_shapes_and_dtypes(point, BRANCHES)
    assert np.abs(point["lora"]["a"] - 1).min() > 0


def evaluated_at(opt_state, params):
    state = params, opt_state
    differs = jax.tree.map(lambda leaf: False, state)
    layout = gmc_jax.Layout(2, "workers", differs, jax.eval_shape(lambda: state))
    return evaluate(opt_state, params, layout)


@pytest.mark.parametrize(
    "inner",
    [
        gmc_jax.sgp(0.1, UNEVEN, delay=1),
        gmc_jax.cser(0.1, CHANNEL, exact(), period=3),
        gmc_jax.local_sgd(0.1, exact(), period=3),
    ],
    ids=["sgp", "cser", "nested"],
)
def test_labels_of_branches_work_in_synchronisations(inner):
    """In the hooks `sync_weighted` and `on_sync`, of `slowmo` and of a resize."""
    tx = gmc_jax.slowmo(of_a_branch(inner), exact(), buffers=gmc_jax.reset_buffers())
    state = BRANCHES, tx.init(BRANCHES)
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf] * WORKERS), BRANCHES)
    layout = gmc_jax.layout(step_of(tx), state, batch, WORKERS)
    params, _ = gmc_jax.resize(layout.lay_out(state), layout, 2)
    assert jax.tree.structure(params) == jax.tree.structure(BRANCHES)


def test_a_wrapper_that_changes_the_structure_is_named():
    params = {"a": jnp.ones(3), "b": jnp.ones(2)}
    tx = optax.flatten(gmc_jax.def_sgd(0.1, all_gather(top_k(0.5))))
    with pytest.raises(ValueError, match=r"structure of `params`.*optax.flatten"):
        query(tx.init(params), params)


def test_random_keys_have_no_mean():
    """The average holds the keys of the first worker."""
    typed = jax.random.split(jax.random.key(0), 3)
    raw = jax.random.split(jax.random.PRNGKey(0), 3)
    one = jax.eval_shape(lambda: (typed[0], raw[0]))
    layout = gmc_jax.Layout(3, "workers", (True, True), one)
    new, old = gmc_jax.average_workers((typed, raw), layout)
    assert new == typed[0]
    np.testing.assert_array_equal(old, raw[0])


def test_integers_and_flags_keep_their_dtypes_in_averages():
    flags = jnp.array([True, False, False])
    large = jnp.array([16777217, 16777217, 16777220], jnp.int32)
    small = jnp.array([3, 0, 0], jnp.uint8)
    one = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype),
        (flags, large, small),
    )
    layout = gmc_jax.Layout(3, "workers", (True, True, True), one)
    averages = gmc_jax.average_workers((flags, large, small), layout)
    assert [leaf.item() for leaf in averages] == [False, 16777218, 1]
    assert [leaf.dtype for leaf in averages] == [bool, np.int32, np.uint8]
