"""Warnings about draws that workers or steps repeat, and what causes none."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gmc_jax
from gmc_jax import all_reduce, gmc, random_block, random_k, worker_key, worker_rngs

ALIKE = r"same random numbers on all workers, .* shape \(4,\).*`gmc_jax.worker_rngs\("
CONSTANT = r"same random numbers at every step, .* it closes over their key.*the state"
TX = gmc(0.1, all_reduce(random_block(0.5)))
KEY = jax.random.key(0)
RAW = jax.random.PRNGKey(0)
BATCH = np.ones((2, 4), np.float32)


def loss_of(params, batch, key, draw=jax.random.uniform):
    return jnp.sum((params - batch) ** 2 * draw(key, batch.shape))


def step_of(loss_fn, tx=TX):
    """A step whose state has a key and a count, and gives them to the loss."""

    def step(state, batch):
        params, opt_state, key, count = state
        grads = jax.grad(loss_fn)(params, batch, key, count)
        updates, opt_state = tx.update(grads, opt_state, params)
        key = jax.random.split(key)[0]
        return (optax.apply_updates(params, updates), opt_state, key, count + 1), {}

    return step


def layout_of(step, tx=TX, key=KEY, workers=2):
    state = jnp.zeros(4), tx.init(jnp.zeros(4)), key, 0
    return gmc_jax.layout(step, state, BATCH[:workers], workers)


def in_a_scan(params, batch, key, count):
    """As layers do: a key goes round with activations."""

    def layer(carry, _):
        hidden, key = carry
        key, draw = jax.random.split(key)
        return (hidden * jax.random.uniform(draw, (4,)), key), None

    (hidden, _), _ = jax.lax.scan(layer, (params - batch, key), length=2)
    return jnp.sum(hidden)


REPEATED = {
    "a key": lambda w, x, key, n: loss_of(w, x, key),
    "a gamma": lambda w, x, key, n: loss_of(
        w, x, key, lambda key, shape: jax.random.gamma(key, 2.0, shape)
    ),
    "a count": lambda w, x, key, n: loss_of(w, x, jax.random.fold_in(KEY, n)),
    "a scan": in_a_scan,
    "a checkpoint": lambda w, x, key, n: jax.checkpoint(loss_of)(w, x, key),
    "beside a worker's own": lambda w, x, key, n: (
        loss_of(w, x, worker_key(key)) + loss_of(w, x, key)
    ),
}


@pytest.mark.parametrize("how", REPEATED)
def test_a_replicated_key_is_a_warning(how):
    """The kind: K workers that drop the same units, whose loss looks as it should."""
    with pytest.warns(UserWarning, match=ALIKE) as caught:
        layout_of(step_of(REPEATED[how]))
    assert len(caught) == 1
    assert caught[0].filename.endswith("test_draw_warnings.py")


def test_a_raw_key_counts_too():
    with pytest.warns(UserWarning, match=ALIKE):
        layout_of(step_of(REPEATED["a key"]), key=RAW)


@pytest.mark.parametrize("key", [KEY, RAW], ids=["typed", "raw"])
@pytest.mark.parametrize("own", [False, True])
def test_a_key_that_the_step_closes_over_is_a_warning(key, own):
    def loss_fn(params, batch, _, count):
        return loss_of(params, batch, worker_key(key) if own else key)

    with pytest.warns(UserWarning, match=CONSTANT) as caught:
        layout_of(step_of(loss_fn))
    assert len(caught) == 1


def drawn_outside(state, batch):
    """Shared on purpose: a mask that all workers draw, and the optimizer's noise."""
    params, opt_state, key, count = state
    mask = jax.random.uniform(key, (4,))
    grads = jax.grad(lambda w: jnp.sum((w - batch) ** 2 * mask))(params)
    updates, opt_state = TX.update(grads, opt_state, params)
    noise = 0.1 * jax.random.normal(key, (4,))
    params = optax.apply_updates(optax.apply_updates(params, updates), noise)
    return (params, opt_state, key, count), {}


def of_batches(params, batch, key, count):
    return loss_of(params, batch, jax.random.key(batch[0].astype(jnp.int32)))


INTENDED = {
    "worker_key": step_of(lambda w, x, key, n: loss_of(w, x, worker_key(key))),
    "worker_rngs": step_of(
        lambda w, x, key, n: loss_of(w, x, worker_rngs({"dropout": key})["dropout"])
    ),
    "a key of each batch": step_of(of_batches),
    "drawn outside": drawn_outside,
    "written in the loss": step_of(
        lambda w, x, key, n: loss_of(w, x, jax.random.key(3))
    ),
    "own in a scan": step_of(lambda w, x, key, n: in_a_scan(w, x, worker_key(key), n)),
}


@pytest.mark.parametrize("how", INTENDED)
def test_draws_of_ones_own_or_shared_on_purpose_cause_no_warning(how):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layout_of(INTENDED[how])


def test_a_key_that_differs_in_the_state_causes_no_warning():
    def step(state, batch):
        params, opt_state, key, count = state
        key = worker_key(key)
        grads = jax.grad(loss_of)(params, batch, key)
        updates, opt_state = TX.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state, key, count), {}

    def late(state, batch):
        params, opt_state, key, count = state
        grads = jax.grad(loss_of)(params, batch, key)
        updates, opt_state = TX.update(grads, opt_state, params)
        state = optax.apply_updates(params, updates), opt_state, worker_key(key), count
        return state, {}

    for each in (step, late):
        assert layout_of(each).differs[2]


def test_draws_of_channels_inside_a_method_cause_no_warning():
    tx = gmc_jax.skip_nonfinite(gmc(0.1, all_reduce(random_k(0.5), per_leaf=True)))
    layout_of(step_of(lambda w, x, key, n: jnp.sum((w - x) ** 2), tx), tx)


@pytest.mark.parametrize("own", [False, True])
def test_draws_of_an_unrolled_gradient_are_seen(own):
    def step(state, batch):
        params, opt_state, key, count = state
        draw = worker_key(key) if own else key
        grads = gmc_jax.unrolled(jax.grad(loss_of))(params, batch, draw)
        updates, opt_state = TX.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state, key, count), {}

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        layout_of(step)
    assert len(caught) == (0 if own else 1)


def test_one_worker_may_draw_with_any_key():
    layout_of(step_of(REPEATED["a key"]), workers=1)


def nnx_step(merge):
    """A step of an NNX model with dropout; `merge` makes the model in the loss."""
    model = nnx.Dropout(0.5, rngs=nnx.Rngs(1))
    graph, rest = nnx.split(model)

    def loss_fn(params, rest, batch):
        model = merge(graph, rest)
        return jnp.sum((params * model(batch)) ** 2), nnx.state(model)

    def step(state, batch):
        params, opt_state, rest = state
        grads, rest = jax.grad(loss_fn, has_aux=True)(params, rest, batch)
        updates, opt_state = TX.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state, rest), {}

    return step, (jnp.ones(4), TX.init(jnp.ones(4)), rest)


def test_naive_dropout_of_nnx_is_a_warning():
    step, state = nnx_step(lambda graph, rest: nnx.merge(graph, rest, copy=True))
    with pytest.warns(UserWarning, match=ALIKE):
        gmc_jax.layout(step, state, BATCH, 2)
    step, state = nnx_step(lambda graph, rest: nnx.merge(graph, worker_rngs(rest)))
    gmc_jax.layout(step, state, BATCH, 2)


def test_variables_of_nnx_from_outside_the_gradient_are_explained():
    step, state = nnx_step(nnx.merge)
    with pytest.raises(Exception, match="Cannot mutate RngCount") as caught:
        gmc_jax.layout(step, state, BATCH, 2)
    note = caught.value.__notes__[-1]
    assert "Keep it in the state" in note
    assert "copy=True" in note


def test_rngs_that_the_step_closes_over_are_explained():
    rngs = nnx.Rngs(0)
    with pytest.raises(Exception, match="Cannot mutate RngCount") as caught:
        layout_of(step_of(lambda w, x, key, n: loss_of(w, x, rngs.dropout())))
    assert "closes over" in caught.value.__notes__[-1]
