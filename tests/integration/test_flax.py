"""Parameters of Flax, of linen and nnx, and in trees of all kinds."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.training.train_state import TrainState

import gmc_jax
from gmc_jax import all_gather, detached, error_feedback, gmc, top_k
from tests.support import problems
from tests.support.harness import (
    WORKERS,
    close,
    distribute_if_slow,
    drive,
    every_runner,
    start,
    targets,
    train,
)

STEPS = 9
CHANNEL = all_gather(top_k(0.2))
GMC = gmc(0.1, CHANNEL)
DETACHED = optax.chain(detached(error_feedback(CHANNEL), 0.5, 0.1), optax.scale(-0.1))


@functools.cache
def samples():
    """Inputs, and what a network is to make of them."""
    inputs = np.random.default_rng(1).normal(size=(STEPS, WORKERS, 4, 3))
    inputs = inputs.astype(np.float32)
    return inputs, np.sin(inputs.sum(-1, keepdims=True))


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        hidden = jnp.tanh(linen.Dense(8)(x))
        return linen.Dense(1)(hidden)


class Nnx(nnx.Module):
    def __init__(self, params):
        self.inner = nnx.Linear(3, 8, rngs=nnx.Rngs(0))
        self.outer = nnx.Linear(8, 1, rngs=nnx.Rngs(0))
        nnx.update(self.inner, params["Dense_0"])
        nnx.update(self.outer, params["Dense_1"])

    def __call__(self, x):
        return self.outer(jnp.tanh(self.inner(x)))


@functools.cache
def dense_layers():
    return Linen().init(jax.random.key(0), np.zeros((1, 3)))["params"]


def tanh_loss(params, batch):
    inputs, wanted = batch
    inner, outer = params["Dense_0"], params["Dense_1"]
    hidden = jnp.tanh(inputs @ inner["kernel"] + inner["bias"])
    return jnp.mean((hidden @ outer["kernel"] + outer["bias"] - wanted) ** 2)


@functools.cache
def trained_by_hand(runner, tx):
    params, _ = train(runner, tx, samples(), dense_layers(), tanh_loss)
    return params


@distribute_if_slow
def test_a_train_state_of_linen(runner):
    state = TrainState.create(apply_fn=Linen().apply, params=dense_layers(), tx=GMC)

    def step(state, batch):
        inputs, wanted = batch

        def loss_fn(params):
            made = state.apply_fn({"params": params}, inputs)
            return jnp.mean((made - wanted) ** 2)

        point = gmc_jax.query(state.opt_state, state.params)
        loss, grads = jax.value_and_grad(loss_fn)(point)
        return state.apply_gradients(grads=grads), loss

    state, _ = drive(
        runner, step, state, samples(), replicated=lambda state: state.params
    )
    assert state.step == STEPS
    close(state.params, trained_by_hand(runner, GMC))


@every_runner
@pytest.mark.parametrize("tx", [GMC, DETACHED], ids=["gmc", "detached"])
def test_an_optimizer_of_nnx(runner, tx):
    model = Nnx(dense_layers())
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    graph, state = nnx.split((model, optimizer))

    def step(state, batch):
        model, optimizer = nnx.merge(graph, state)
        inputs, wanted = batch
        params, opt_state = nnx.as_pure((nnx.state(model), optimizer.opt_state))
        there = nnx.clone(model)
        nnx.update(there, gmc_jax.query(opt_state, params))
        loss, grads = nnx.value_and_grad(
            lambda model: jnp.mean((model(inputs) - wanted) ** 2)
        )(there)
        optimizer.update(model, grads)
        return nnx.split((model, optimizer))[1], loss

    def parameters(state):
        return nnx.state(nnx.merge(graph, state)[0])

    state, _ = drive(runner, step, state, samples(), replicated=parameters)
    model, _ = nnx.merge(graph, state)
    expected = trained_by_hand(runner, tx)
    for layer, name in ((model.inner, "Dense_0"), (model.outer, "Dense_1")):
        close(nnx.to_pure_dict(nnx.state(layer)), expected[name])


def test_of_nnx_models_the_pure_parameters_are_asked_for():
    """Hints that blame what did not happen: here nothing was flattened."""
    model = Nnx(dense_layers())
    optimizer = nnx.Optimizer(model, DETACHED, wrt=nnx.Param)
    params = nnx.state(model)
    for tree in (params, nnx.as_pure(params)):
        with pytest.raises(ValueError, match=r"structure of `params`.*`nnx.as_pure\("):
            gmc_jax.query(optimizer.opt_state, tree)


def split_of(tx, ask=True):
    """A step whose state is an `nnx.Optimizer` in `nnx.split`, and that made whole."""
    model = Nnx(dense_layers())
    graph, state = nnx.split((model, nnx.Optimizer(model, tx, wrt=nnx.Param)))

    def pure(state):
        model, optimizer = nnx.merge(graph, state)
        return nnx.as_pure((nnx.state(model), optimizer.opt_state))

    def step(state, batch):
        model, optimizer = nnx.merge(graph, state)
        if ask:
            params, opt_state = pure(state)
            gmc_jax.query(opt_state, params)
        grads = nnx.grad(lambda model: jnp.mean((model(batch[0]) - batch[1]) ** 2))(
            model
        )
        optimizer.update(model, grads)
        return nnx.split((model, optimizer))[1], {}

    return step, state, pure


STAR = [[worker * other == 0 for other in range(WORKERS)] for worker in range(WORKERS)]
TAKEN_APART = {
    "sgp": gmc_jax.sgp(0.1, gmc_jax.topologies.pushing(STAR)),
    "cser": gmc_jax.cser(0.1, CHANNEL, CHANNEL, period=4),
    "count_entries": gmc(0.1, gmc_jax.count_entries(CHANNEL)),
}


@pytest.mark.parametrize("name", TAKEN_APART)
def test_resize_says_which_states_nnx_took_apart(name):
    """Hooks that are not found, as the kept state is dictionaries: mass was lost."""
    step, state, pure = split_of(TAKEN_APART[name])
    batch = jax.tree.map(lambda leaf: leaf[0], samples())
    plan = gmc_jax.layout(step, state, batch, WORKERS)
    kept = plan.lay_out(state)
    with pytest.raises(ValueError, match=r"`resize` needs each .*layout.of\(pure\)"):
        gmc_jax.resize(kept, plan, 2, params=lambda state: pure(state)[0])
    assert gmc_jax.resize(kept, plan, WORKERS)
    assert gmc_jax.resize(pure(kept), plan.of(pure), 2)


def test_evaluate_says_which_states_nnx_took_apart():
    step, state, pure = split_of(gmc_jax.at_virtual_iterate(GMC))
    batch = jax.tree.map(lambda leaf: leaf[0], samples())
    plan = gmc_jax.layout(step, state, batch, WORKERS)
    kept = plan.lay_out(state)
    params, opt_state = pure(kept)
    with pytest.raises(
        ValueError, match="`evaluate` needs each `AtVirtualIterateState`"
    ):
        gmc_jax.evaluate(kept[1], kept[0], plan.of(lambda state: state[0]))
    evaluated = gmc_jax.evaluate(opt_state, params, plan.of(pure))
    close(nnx.to_pure_dict(evaluated), nnx.to_pure_dict(params))


def test_a_method_that_nnx_took_apart_is_to_be_asked():
    """The kind: what moves the gradient is looked for in the kept state alone."""
    batch = jax.tree.map(lambda leaf: leaf[0], samples())
    tx = gmc_jax.gmc_plus(0.1, CHANNEL)
    gmc_jax.layout(*split_of(tx)[:2], batch, WORKERS)
    with pytest.warns(UserWarning, match="a `DetachedState`.*never calls"):
        gmc_jax.layout(*split_of(tx, ask=False)[:2], batch, WORKERS)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Parts:
    nothing: None
    pair: tuple
    rest: dict


def parts(vectors) -> Parts:
    """Entries along the last axis as a tree of everything, in their order."""
    scalar, matrix = vectors[..., 4], vectors[..., 5:]
    return Parts(
        nothing=None,
        pair=(vectors[..., :4], [scalar]),
        rest={
            "a": matrix.reshape(*matrix.shape[:-1], 3, 5),
            "b": None,
            "c": vectors[..., 20:],
        },
    )


@distribute_if_slow
def test_any_tree_of_parameters_will_do(runner):
    vector = problems.flat(start())
    batches = targets(start(), STEPS)
    vectors = problems.flat(batches, leading=2)
    params, _ = train(runner, GMC, parts(vectors), parts(vector))
    assert isinstance(params, Parts)
    assert params.pair[1][0].shape == ()
    assert params.rest["c"].shape == (0,)
    expected, _ = train(runner, GMC, batches)
    close(params, parts(problems.flat(expected)))


@distribute_if_slow
def test_the_loss_may_be_rematerialized(runner):
    params, _ = train(runner, GMC, samples(), dense_layers(), jax.checkpoint(tanh_loss))
    close(params, trained_by_hand(runner, GMC))
