"""Steps that train something else than they seem to, and warnings that say so."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import (
    all_gather,
    averaged,
    drop_all,
    exact,
    gmc,
    no_communication,
    skip_nonfinite,
    top_k,
)
from gmc_jax.utils.trees import find
from tests.support.harness import RUNNERS, WORKERS, pmap, pull, start, step_of

CHANNEL = all_gather(top_k(0.2))
BATCH = jax.tree.map(lambda leaf: np.zeros((WORKERS, *leaf.shape), "f"), start())
RING = gmc_jax.topologies.ring(WORKERS)
every_runner = pytest.mark.parametrize("runner", [*RUNNERS.values(), pmap])

SEPARATE = (
    r"trains 8 separate models.* `state\[0\]\['bias'\]` differs"
    r".*averaged\(gmc_jax.exact.*gmc_jax.no_communication\(\)"
)
UNASKED = "a `DetachedState`.*never calls.*`gmc_jax.query.opt_state, params.`"


def layout_of(step, state, workers: int = WORKERS, batch=BATCH):
    batch = jax.tree.map(lambda leaf: leaf[:workers], batch)
    return gmc_jax.layout(step, state, batch, workers)


def state_of(tx):
    return start(), tx.init(start())


def without_query(tx, gradient=None):
    """As `harness.step_of`, at the parameters."""
    gradient = gradient or jax.grad(pull)

    def step(state, batch):
        params, opt_state = state
        updates, opt_state = tx.update(gradient(params, batch), opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), {}

    return step


# Separate models.


@every_runner
def test_a_step_without_a_channel_is_a_warning(runner):
    """The kind: K models apart, whose loss even looks better, without a word."""
    tx = optax.sgd(0.1)
    with pytest.warns(UserWarning, match=SEPARATE) as caught:
        runner(step_of(tx), state_of(tx), BATCH)
    assert len(caught) == 1
    assert caught[0].filename.endswith(("test_step_warnings.py", "harness.py"))


def loop(params, batch):
    """Sums gradients over micro-batches."""
    return jax.lax.scan(
        lambda total, _: (optax.tree.add(total, jax.grad(pull)(params, batch)), None),
        optax.tree.zeros_like(params),
        length=2,
    )[0]


SEPARATELY = {
    "adam": without_query(optax.adam(0.1)),
    "jit": jax.jit(without_query(optax.adam(0.1))),
    "scan": without_query(optax.adam(0.1), loop),
    "checkpoint": without_query(optax.adam(0.1), jax.grad(jax.checkpoint(pull))),
    "unrolled": without_query(optax.adam(0.1), gmc_jax.unrolled(jax.grad(pull))),
    "forward": without_query(optax.adam(0.1), jax.jacfwd(pull)),
}


@pytest.mark.parametrize("how", SEPARATELY)
def test_separate_models_are_found_however_gradients_are_taken(how):
    with pytest.warns(UserWarning, match=SEPARATE):
        layout_of(SEPARATELY[how], state_of(optax.adam(0.1)))


def test_averaged_metrics_do_not_connect_workers():
    def step(state, batch):
        (loss, grads) = jax.value_and_grad(pull)(state[0], batch)
        params = jax.tree.map(lambda w, g: w - 0.1 * g, state[0], grads)
        return (params, state[1]), {"loss": jax.lax.pmean(loss, "workers")}

    with pytest.warns(UserWarning, match=SEPARATE):
        layout_of(step, (start(), ()))


def test_a_common_decision_does_not_connect_workers():
    tx = skip_nonfinite(optax.sgd(0.1))
    with pytest.warns(UserWarning, match=SEPARATE):
        layout_of(step_of(tx), state_of(tx))


def test_other_axes_do_not_count():
    """Neither the collectives nor the intent of another axis count."""
    apart = no_communication(axis_name="inner")

    def inner(w):
        return jax.lax.psum(apart.average(w, ())[0], "inner")

    def step(state, batch):
        (params, opt_state), _ = without_query(optax.sgd(0.1))(state, batch)
        rows = jax.tree.map(lambda w: w[None], params)
        merged = jax.vmap(inner, out_axes=None, axis_name="inner")(rows)
        return (merged, opt_state), {}

    with pytest.warns(UserWarning, match=SEPARATE):
        layout_of(step, state_of(optax.sgd(0.1)))


def evaluation(state, batch):
    params, total = state
    slope = jax.grad(pull)(params, batch)
    return (params, optax.tree.add(total, slope)), {}


def statistics(state, batch):
    params, mean = state
    loss, slope = jax.value_and_grad(pull)(params, batch)
    slope = jax.tree.map(lambda g: jax.lax.pmean(g, "workers"), slope)
    params = jax.tree.map(lambda w, g: w - 0.1 * g, params, slope)
    return (params, jax.tree.map(lambda m: 0.9 * m + 0.1 * loss, mean)), {}


def counters(state, batch):
    params, (key, count) = state
    pull(params, batch)
    key = gmc_jax.worker_key(key)
    return (params, (key, count + jax.lax.axis_index("workers"))), {}


METHODS = {
    "gmc": gmc(0.1, CHANNEL),
    "accumulate": gmc_jax.accumulate(gmc(0.1, CHANNEL), 3),
    "skip_nonfinite": skip_nonfinite(gmc(0.1, CHANNEL)),
    "slowmo": gmc_jax.slowmo(optax.adam(0.1), exact(), period=3),
    "d_psgd": gmc_jax.d_psgd(0.1, RING, momentum=0.9),
    "sgp": gmc_jax.sgp(0.1, RING, delay=1),
    "signum": gmc_jax.signum(0.1, gmc_jax.majority_vote()),
    "gmc_plus": gmc_jax.gmc_plus(0.1, CHANNEL),
    "join_channels": gmc(0.1, gmc_jax.join_channels([exact(), CHANNEL], [3])),
    "no_communication": optax.chain(averaged(no_communication()), optax.adam(0.1)),
    "drop_all": gmc_jax.def_a(0.1, drop_all()),
    "slowmo alone": gmc_jax.slowmo(optax.adam(0.1), no_communication(), period=3),
}
STEPS = {
    "an evaluation": (evaluation, (start(), start())),
    "statistics": (statistics, (start(), start())),
    "counters and keys": (counters, (start(), (jax.random.key(0), 0))),
    **{name: (step_of(tx), state_of(tx)) for name, tx in METHODS.items()},
}


@pytest.mark.parametrize("name", STEPS)
def test_intended_differences_cause_no_warning(name):
    """Whatever else differs between workers; `no_communication` is how one says it."""
    step, state = STEPS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layout = layout_of(step, state)
    if "gmc" not in name and name != "signum":
        assert any(jax.tree.leaves(layout.differs))


def test_one_worker_needs_no_channel():
    tx = optax.sgd(0.1)
    layout_of(step_of(tx), state_of(tx), workers=1)


# Points that nobody asked for.

PLUS = gmc_jax.gmc_plus(0.1, CHANNEL)


@every_runner
def test_a_method_with_a_query_must_be_queried(runner):
    """The kind: a loop that passes a method by, and so trains by another one."""
    with pytest.warns(UserWarning, match=UNASKED) as caught:
        runner(without_query(PLUS), state_of(PLUS), BATCH)
    assert len(caught) == 1


def test_also_with_one_worker_and_inside_wrappers():
    tx = optax.chain(optax.identity(), gmc_jax.accumulate(PLUS, 2))
    with pytest.warns(UserWarning, match=UNASKED):
        layout_of(without_query(tx), state_of(tx), workers=1)


def asked_inside(opt_state, params, batch):
    return pull(gmc_jax.query(opt_state, params), batch)


ASKED = {
    "inside the loss": jax.grad(asked_inside, argnums=1),
    "jit": jax.jit(jax.grad(asked_inside, argnums=1)),
    "jit inside": jax.grad(jax.jit(asked_inside), argnums=1),
    "checkpoint": jax.grad(jax.checkpoint(asked_inside), argnums=1),
    "scan": lambda *where: jax.lax.scan(
        lambda total, _: (total, jax.grad(asked_inside, argnums=1)(*where)),
        (),
        length=1,
    )[1],
}


@pytest.mark.parametrize("how", ASKED)
def test_query_may_be_called_anywhere(how):
    """Also in functions that JAX has traced before, and remembers."""

    def step(state, batch):
        params, opt_state = state
        grads = ASKED[how](opt_state, params, batch)
        grads = jax.tree.map(lambda g, w: g.reshape(w.shape), grads, params)
        updates, opt_state = PLUS.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), {}

    for _ in range(2):
        layout_of(step, state_of(PLUS))


def test_the_result_of_query_may_be_ignored():
    def step(state, batch):
        params, opt_state = state
        gmc_jax.query(opt_state, params)
        return without_query(PLUS)(state, batch)

    layout_of(step, state_of(PLUS))


def test_a_step_without_gradients_needs_no_query():
    def step(state, batch):
        return state, pull(state[0], batch)

    layout_of(step, state_of(PLUS))

    def given(state, batch):
        params, opt_state = state
        updates, opt_state = PLUS.update(batch, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), {}

    layout_of(given, state_of(PLUS))


def test_a_step_that_does_not_update_the_method_needs_no_query():
    """Say an evaluation against adversaries, which takes gradients of its inputs."""

    def step(state, batch):
        params, opt_state, total = state
        slope = jax.grad(pull, argnums=1)(params, batch)
        worse = jax.tree.map(lambda x, g: x + 0.1 * jnp.sign(g), batch, slope)
        return (params, opt_state, total + pull(params, worse)), {}

    layout_of(step, (*state_of(PLUS), 0.0))
    layout_of(jax.jit(step), (*state_of(PLUS), 0.0))


def test_each_of_two_methods_must_be_queried():
    """Say of a generator and its critic: one that is asked answers for itself alone."""

    def step(state, batch, asks_second):
        first, second = state
        second_step = step_of(PLUS) if asks_second else without_query(PLUS)
        return (step_of(PLUS)(first, batch)[0], second_step(second, batch)[0]), {}

    states = (state_of(PLUS), state_of(PLUS))
    layout_of(functools.partial(step, asks_second=True), states)
    with pytest.warns(UserWarning, match=UNASKED):
        layout_of(functools.partial(step, asks_second=False), states)


def test_query_changes_no_compiled_program():
    """The mark of `query` is gone where XLA begins."""
    state = state_of(PLUS)
    own = jax.tree.map(lambda leaf: leaf[0], BATCH)

    def texts(ask):
        def point(params, opt_state, batch):
            return pull(ask(opt_state, params), batch)

        return jax.jit(jax.grad(point)).lower(*state, own).as_text()

    def unmarked(opt_state, params):
        return find(opt_state, gmc_jax.DetachedState)[0].query(params)

    assert texts(gmc_jax.query) == texts(unmarked)
    assert jnp.all(gmc_jax.query(state[1], state[0])["bias"] == start()["bias"])
