"""Tests of hooks: states are found by them, and parameters never are."""

import dataclasses
from typing import Any, NamedTuple, cast

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gmc_jax
from gmc_jax import (
    all_gather,
    evaluate,
    exact,
    query,
    top_k,
    topologies,
)
from gmc_jax.transforms.sync_hooks import sync_weighted
from tests.support.harness import step_of

WORKERS = 4
CHANNEL = all_gather(top_k(0.2))


@gmc_jax.with_hooks
class Shifted(NamedTuple):
    """A state from elsewhere that takes its gradient away from the parameters."""

    by: float

    def query(self, params):
        return jax.tree.map(lambda w: 2 * w + self.by, params)


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
