"""Tests of the point at which a model is evaluated, and of averages over workers."""

from typing import NamedTuple

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import (
    all_gather,
    average_workers,
    evaluate,
    gmc,
    top_k,
)
from gmc_jax.core import Tree
from tests.support import problems

WORKERS, D = 4, 20
CHANNEL = all_gather(top_k(0.2))


def start():
    return problems.tree(np.linspace(-2, 2, D, dtype=np.float32))


def residual_of(states) -> Tree:
    return optax.tree.get(states, "residual")


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
