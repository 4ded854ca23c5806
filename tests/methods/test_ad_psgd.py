"""Tests of the event simulations: against event loops in NumPy, and their means."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import Event, a_psgd, ad_psgd, paces, timelines, topologies
from tests.support import problems
from tests.support.virtual_iterates import MOMENTUM, RATE

EVENTS, WORKERS = 120, 4
LINK = timelines.Link(latency=0.05, bandwidth=1e3)
PACE = paces.random(WORKERS, 40, spread=0.5, seed=1)
PROBLEM = problems.quadratics(WORKERS, steps=EVENTS)
TIMELINES = {
    ad_psgd: timelines.neighbour_events(
        PACE, EVENTS, 80, LINK, topologies.ring(WORKERS)
    ),
    a_psgd: timelines.server_events(PACE, EVENTS, 80, LINK),
}


def gradient(params, batch):
    """The loss of one worker at one event, and its gradient."""
    hessian, target, noise = batch

    def loss_fn(params):
        weights = jnp.concatenate([x.ravel() for x in jax.tree.leaves(params)])
        residual = weights - target
        return residual @ hessian @ residual / 2 + noise @ weights

    return jax.value_and_grad(loss_fn)(params)


def run(factory, inner, events=None):
    """The states before the first event and after each, stacked."""
    events = TIMELINES[factory] if events is None else events
    with jax.enable_x64(True):
        method = factory(inner, gradient=gradient, workers=events.reads.shape[1])
        state = method.init(problems.tree(PROBLEM.start))
        step = jax.jit(method.step)
        states, evaluated = [state], []
        for t, (_, worker, partner, reads) in enumerate(zip(*events, strict=True)):
            batch = (
                PROBLEM.hessians[worker],
                PROBLEM.targets[worker],
                PROBLEM.noise[t, worker],
            )
            state, _ = step(state, Event(worker, partner, reads), batch)
            states.append(state)
            evaluated.append(method.evaluate(state))
        stacked = jax.tree.map(lambda *x: np.stack(x), *states)
        return stacked, problems.flat(
            jax.tree.map(lambda *x: np.stack(x), *evaluated), leading=1
        )


def neighbours(events, beta: float):
    """Lian et al., one event after another: x of all workers."""
    x = np.stack([PROBLEM.start] * WORKERS)
    known, m, trace = x.copy(), np.zeros_like(x), [x]
    for t, (i, j) in enumerate(zip(events.worker, events.partner, strict=True)):
        g = PROBLEM.gradient(i, t, known[i])
        m[i] = beta * m[i] + g
        w = np.eye(WORKERS)
        if i != j:
            w[np.ix_([i, j], [i, j])] = 0.5
        x = w @ x
        x[i] -= RATE * m[i]
        known[i] = x[i]
        trace.append(x.copy())
    return np.stack(trace)


def server(events, beta: float):
    """The server's x: a gradient is of what its worker read last."""
    x, m = PROBLEM.start, np.zeros(20)
    known, trace = [x] * WORKERS, [x]
    for t, i in enumerate(events.worker):
        m = beta * m + PROBLEM.gradient(i, t, known[i])
        x = x - RATE * m
        for k in np.flatnonzero(events.reads[t]):
            known[k] = x
        trace.append(x)
    return np.stack(trace)


@pytest.mark.parametrize("beta", [0.0, MOMENTUM])
@pytest.mark.parametrize(("factory", "loop"), [(ad_psgd, neighbours), (a_psgd, server)])
def test_it_equals_an_event_loop(factory, loop, beta):
    states, evaluated = run(factory, optax.sgd(RATE, beta))
    expected = loop(TIMELINES[factory], beta)
    ours = problems.flat(states.params, leading=expected.ndim - 1)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-10)
    mean = expected if expected.ndim == 2 else expected.mean(axis=1)
    np.testing.assert_allclose(evaluated, mean[1:], rtol=0, atol=1e-10)
    assert np.abs(expected[-1] - expected[0]).max() > 0.1


def test_something_is_stale():
    """Or the loops above would tell nothing."""
    states, _ = run(ad_psgd, optax.sgd(RATE))
    x = problems.flat(states.params, leading=2)
    known = problems.flat(states.known, leading=2)
    stale = (x != known).any(axis=2)[:-1]
    events = TIMELINES[ad_psgd]
    assert stale[np.arange(EVENTS), events.worker].mean() > 0.2
    reads = TIMELINES[a_psgd].reads
    assert not np.array_equal(reads.argmax(axis=1), TIMELINES[a_psgd].worker)


def test_the_mean_moves_by_one_gradient_over_the_workers():
    states, _ = run(ad_psgd, optax.sgd(RATE))
    x = problems.flat(states.params, leading=2)
    known = problems.flat(states.known, leading=2)
    steps = [
        -RATE * PROBLEM.gradient(i, t, known[t, i]) / WORKERS
        for t, i in enumerate(TIMELINES[ad_psgd].worker)
    ]
    moved = np.diff(x.mean(axis=1), axis=0)
    np.testing.assert_allclose(moved, np.stack(steps), rtol=0, atol=1e-13)


def test_without_averages_and_delays_workers_are_alone():
    events = TIMELINES[ad_psgd]._replace(partner=TIMELINES[ad_psgd].worker)
    states, _ = run(ad_psgd, optax.sgd(RATE, MOMENTUM), events)
    x = problems.flat(states.params, leading=2)
    for k in range(WORKERS):
        w, m = PROBLEM.start, 0
        for t in map(int, np.flatnonzero(events.worker == k)):
            m = MOMENTUM * m + PROBLEM.gradient(k, t, w)
            w = w - RATE * m
        np.testing.assert_allclose(x[-1, k], w, rtol=0, atol=1e-11)


def test_one_worker_and_a_server_are_sgd():
    events = timelines.server_events(PACE[:1], 30, 80, LINK)
    states, _ = run(a_psgd, optax.sgd(RATE, MOMENTUM), events)
    w, m = PROBLEM.start, 0
    for t in range(30):
        m = MOMENTUM * m + PROBLEM.gradient(0, t, w)
        w = w - RATE * m
    ours = problems.flat(states.params, leading=1)[-1]
    np.testing.assert_allclose(ours, w, rtol=0, atol=1e-11)


@pytest.mark.parametrize("factory", [ad_psgd, a_psgd])
def test_sixteen_bits_stay_and_workers_are_counted(factory):
    def simple(params, batch):
        return jnp.float32(0), jax.tree.map(lambda x: x - batch, params)

    method = factory(optax.sgd(0.1), gradient=simple, workers=2)
    params = {"x": jnp.ones(3, jnp.bfloat16)}
    event = Event(0, 1, np.array([True, False]))
    state, loss = jax.jit(method.step)(method.init(params), event, jnp.bfloat16(0))
    assert {x.dtype for x in jax.tree.leaves(state)} == {jnp.dtype("bfloat16")}
    assert method.evaluate(state)["x"].dtype == jnp.bfloat16
    assert loss == 0
    assert isinstance(method, gmc_jax.Asynchronous)
    with pytest.raises(ValueError, match="`workers`"):
        factory(optax.sgd(0.1), gradient=simple, workers=0)


@pytest.mark.parametrize("factory", [ad_psgd, a_psgd])
@pytest.mark.parametrize(
    ("event", "message"),
    [
        (Event(0, 0, np.ones(3, bool)), r"shape \(4,\), .* got \(3,\)"),
        (Event(9, 0, np.ones(4, bool)), "`event.worker` must be from 0 to 3, got 9"),
        (Event(0, -1, np.ones(4, bool)), "`event.partner` must be from 0 to 3, got -1"),
    ],
)
def test_an_event_is_of_as_many_workers(factory, event, message):
    method = factory(optax.sgd(0.1), gradient=jax.value_and_grad(jnp.sum), workers=4)
    with pytest.raises(ValueError, match=message):
        method.step(method.init(jnp.ones(2)), event, None)
    with pytest.raises(TypeError, match="`inner` must be an optax transformation"):
        factory(0.1, gradient=jax.value_and_grad(jnp.sum), workers=4)
