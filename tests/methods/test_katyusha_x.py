"""Tests of variance reduction: its paper, its other form, and what it contains."""

import math
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import exact, katyusha_x, svrg
from tests.support import harness, problems

N, D, WORKERS, STEPS, M, RATE = 24, 20, 4, 50, 6, 0.03
DRAW = np.random.default_rng(0)
# Samples that are not convex one by one, and are together.
ROOTS = np.linalg.qr(DRAW.normal(size=(N, D, D)))[0]
HESSIANS = np.einsum(
    "nij,nj,nkj->nik", ROOTS, DRAW.uniform(-0.5, 3.0, size=(N, D)), ROOTS
)
TARGETS = DRAW.normal(size=(N, D))
START = 3 * DRAW.normal(size=D)
BATCHES = DRAW.integers(0, N, size=(STEPS, WORKERS, 2))  # With replacement.


def gradient(w: np.ndarray, samples) -> np.ndarray:
    """The mean gradient of some samples, in NumPy."""
    return np.mean([HESSIANS[i] @ (w - TARGETS[i]) for i in samples], axis=0)


def full(w: np.ndarray) -> np.ndarray:
    return gradient(w, range(N))


def ours(tx, workers: int = WORKERS):
    """The loop that the documentation shows; parameters after each step, and y."""
    with jax.enable_x64(True):
        hessians, targets = jnp.asarray(HESSIANS), jnp.asarray(TARGETS)

        def mean_gradient(params, samples):
            def loss_fn(params):
                w = jnp.concatenate([x.ravel() for x in jax.tree.leaves(params)])
                gaps = w[None] - targets[samples]
                return jnp.einsum("ni,nij,nj", gaps, hessians[samples], gaps) / (
                    2 * len(samples)
                )

            return jax.grad(loss_fn)(params)

        def step(state, batch):
            params, opt_state = state
            there = mean_gradient(gmc_jax.svrg_snapshot(opt_state), batch)
            here = mean_gradient(params, batch)
            updates, opt_state = tx.update(
                here, opt_state, params, snapshot_grads=there
            )
            return (optax.apply_updates(params, updates), opt_state), 0.0

        params = problems.tree(START)
        state = params, tx.init(params)
        batches = BATCHES.reshape(STEPS, WORKERS * 2)[:, : workers * 2]
        batches = batches.reshape(STEPS, workers, -1)
        plan = gmc_jax.layout(step, state, batches[0], workers)
        train, state = gmc_jax.simulate(
            step, state, batches[0], workers, replicated=lambda state: state
        )
        trace, evaluated, lengths = [START], [], []
        for batch in batches:
            if gmc_jax.full_gradient_due(state[1]):
                mu = jax.jit(mean_gradient)(state[0], jnp.arange(N))
                state = (state[0], gmc_jax.set_full_gradient(state[1], state[0], mu))
                lengths.append(0)
            lengths[-1] += 1
            state, _ = train(state, batch)
            trace.append(problems.flat(state[0]).copy())
            evaluated.append(problems.flat(gmc_jax.evaluate(state[1], state[0], plan)))
    return np.stack(trace), np.stack(evaluated), lengths


def papers(next_start, lengths, rate=RATE, project=lambda w: w):
    """SVRG's epochs from x_k, and `next_start(k, y_k, x_k, y_{k-1})` between them.

    The last epoch is cut short.
    """
    x = last = START
    trace, evaluated, samples = [START], [], iter(BATCHES.reshape(STEPS, -1))
    for k, length in enumerate(lengths, start=1):
        z, mu, w = x, full(x), x
        for _ in range(length):
            batch = next(samples)
            v = mu + gradient(w, batch) - gradient(z, batch)
            w = project(w - rate * v)
            trace.append(w)
            evaluated.append(last)
        if k < len(lengths):
            x, last = next_start(k, w, x, last), w
            trace[-1], evaluated[-1] = x, last
    return np.stack(trace), np.stack(evaluated)


def strongly(tau):
    return lambda k, y, x, z: (1.5 * y + 0.5 * x - (1 - tau) * z) / (1 + tau)


def weakly(k, y, x, z):
    return ((3 * k + 1) * y + (k + 1) * x - (2 * k - 2) * z) / (2 * k + 4)


METHODS = {
    "svrg": (svrg, {}, lambda k, y, x, z: y),
    "strongly": (
        katyusha_x,
        {"strong_convexity": 0.5},
        strongly(math.sqrt(M * RATE * 0.5) / 2),
    ),
    "weakly": (katyusha_x, {}, weakly),
}


@pytest.mark.parametrize("name", METHODS)
def test_it_equals_its_paper(name):
    factory, options, next_start = METHODS[name]
    trace, evaluated, lengths = ours(factory(RATE, exact(), epoch_length=M, **options))
    assert lengths == [6] * 8 + [2]
    expected, ends = papers(next_start, lengths)
    np.testing.assert_allclose(trace, expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(evaluated, ends, rtol=0, atol=1e-10)
    assert np.abs(trace[-1] - START).max() > 0.5


def test_it_equals_its_paper_with_drawn_lengths():
    """And the paper's transcription with the lengths that were drawn."""
    tx = katyusha_x(RATE, exact(), epoch_length=M, random_length=True, seed=1)
    trace, evaluated, lengths = ours(tx)
    assert len(set(lengths)) > 2
    expected, ends = papers(weakly, lengths)
    np.testing.assert_allclose(trace, expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(evaluated, ends, rtol=0, atol=1e-10)


def test_one_worker_with_all_of_the_mini_batch_is_the_same():
    """As is any other division of it."""
    pair = BATCHES[:, :1]
    assert pair.shape == (STEPS, 1, 2)
    one, _, _ = ours(katyusha_x(RATE, exact(), epoch_length=M), workers=1)
    x = last = START
    k = 1
    for start in range(0, STEPS, M):
        z, w = x, x
        mu = full(x)
        for t in range(start, min(start + M, STEPS)):
            samples = pair[t].ravel()
            w = w - RATE * (mu + gradient(w, samples) - gradient(z, samples))
        if start + M <= STEPS:
            x, last = weakly(k, w, x, last), w
            k += 1
            np.testing.assert_allclose(one[start + M], x, rtol=0, atol=1e-10)


def test_with_tau_one_half_it_is_svrg():
    both = [
        ours(tx)[0]
        for tx in (
            katyusha_x(RATE, exact(), epoch_length=M, strong_convexity=1e9),
            svrg(RATE, exact(), epoch_length=M),
        )
    ]
    np.testing.assert_allclose(*both, rtol=0, atol=1e-12)


def test_the_form_with_linear_coupling_is_the_same():
    """x = tau z + (1 - tau) y, and mirror steps for z: for both versions."""
    draw = np.random.default_rng(1)
    mix = draw.normal(size=(D, D)) / D

    def epoch(x):  # Any map, even one that is not linear.
        return 0.7 * np.tanh(mix @ x) + 0.2 * x

    m_eta = M * RATE
    for sigma in (0.5, None):
        tau_s = 0.0 if sigma is None else math.sqrt(m_eta * sigma) / 2
        next_start = weakly if sigma is None else strongly(tau_s)
        x, last = START, START
        y_c = z_c = START
        for k in range(20):
            tau = 2 / (k + 2) if sigma is None else tau_s
            x_c = tau * z_c + (1 - tau) * y_c
            np.testing.assert_allclose(x_c, x, rtol=1e-9, atol=1e-12)
            y_c = epoch(x_c)
            g = (x_c - y_c) / m_eta
            alpha = m_eta / (2 * tau)
            if sigma is None:
                z_c = z_c - alpha * g
            else:
                z_c = (z_c + tau * y_c - alpha * g) / (1 + tau)
            y = epoch(x)
            x, last = next_start(k + 1, y, x, last), y


def test_lengths_are_drawn_alike_everywhere_and_have_the_mean():
    _, _, lengths = ours(
        svrg(RATE, exact(), epoch_length=M, random_length=True, seed=3)
    )
    _, _, others = ours(svrg(RATE, exact(), epoch_length=M, random_length=True, seed=4))
    assert lengths != others
    tx = gmc_jax.epochs(optax.identity(), M, random_length=True)

    @jax.jit
    def walk(state):
        def body(state, _):
            new: Any
            _, new = tx.update(jnp.zeros(1), state, jnp.zeros(1))
            return new, jnp.where(new.done == 0, state.length, 0)

        return jax.lax.scan(body, state, length=30_000)[1]

    drawn = np.asarray(walk(tx.init(jnp.zeros(1))))
    drawn = drawn[drawn > 0]
    assert drawn.min() == 1
    assert drawn.mean() == pytest.approx(M, rel=0.05)
    assert (drawn == 1).mean() == pytest.approx(1 / M, abs=0.02)


def test_a_projection_keeps_every_step_in_its_set():

    def box(tree):
        ones = optax.tree.ones_like(tree)
        return optax.projections.projection_box(tree, optax.tree.scale(-1, ones), ones)

    tx = svrg(RATE, exact(), epoch_length=M, projection=box)
    trace, _, lengths = ours(tx)
    expected, _ = papers(
        lambda k, y, x, z: y, lengths, project=lambda w: np.clip(w, -1, 1)
    )
    np.testing.assert_allclose(trace, expected, rtol=0, atol=1e-10)
    assert np.abs(trace[1:]).max() <= 1 + 1e-12


@pytest.mark.parametrize("factory", [svrg, katyusha_x])
def test_simulate_distribute_and_pmap_agree(factory):
    tx = factory(0.1, exact(), epoch_length=2)

    def step(state, batch):
        params, opt_state = state
        there = jax.grad(harness.pull)(gmc_jax.svrg_snapshot(opt_state), batch)
        loss, here = jax.value_and_grad(harness.pull)(params, batch)
        due = gmc_jax.full_gradient_due(opt_state)
        mean, _, _ = exact().average(here, ())
        started = gmc_jax.set_full_gradient(opt_state, params, mean)
        opt_state = jax.tree.map(
            lambda new, old: jnp.where(due, new, old), started, opt_state
        )
        updates, opt_state = tx.update(here, opt_state, params, snapshot_grads=there)
        return (optax.apply_updates(params, updates), opt_state), {"loss": loss}

    params = harness.start()
    state, batches = (params, tx.init(params)), harness.targets(params, 5)
    results = [
        harness.drive(runner, step, state, batches)
        for runner in (*harness.RUNNERS.values(), harness.pmap)
    ]
    for other in results[1:]:
        harness.close(results[0], other)
    assert np.abs(results[0][0][0]["bias"] - params["bias"]).max() > 0.01
    batch = jax.tree.map(lambda b: b[0], batches)
    plan = gmc_jax.layout(step, state, batch, harness.WORKERS)
    assert not any(jax.tree.leaves(plan.differs))


def test_the_state_is_found_in_a_chain_or_named_missing():
    tx = optax.chain(
        optax.add_decayed_weights(1e-4), svrg(0.1, exact(), epoch_length=2)
    )
    params = jnp.ones(3)
    state = tx.init(params)
    state = gmc_jax.set_full_gradient(state, params + 1, jnp.arange(3.0))
    np.testing.assert_array_equal(gmc_jax.svrg_snapshot(state), [2, 2, 2])
    for call in (gmc_jax.svrg_snapshot, gmc_jax.full_gradient_due):
        with pytest.raises(ValueError, match=r"must hold one `\w+State`, got 0"):
            call(optax.sgd(0.1).init(params))
    with pytest.raises(ValueError, match="got 0"):
        gmc_jax.set_full_gradient((), params, params)


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="`epoch_length`"):
        svrg(0.1, exact(), epoch_length=0)
    with pytest.raises(ValueError, match="`learning_rate`"):
        katyusha_x(-0.1, exact(), epoch_length=2)
    with pytest.raises(TypeError, match=r"`learning_rate` must be known .* shapes"):
        jax.jit(lambda rate: katyusha_x(rate, exact(), epoch_length=2).init(1.0))(0.1)
    with pytest.raises(TypeError, match="`projection` must be a function"):
        svrg(0.1, exact(), epoch_length=2, projection=cast(Any, 3))
    with pytest.raises(ValueError, match="`strong_convexity`"):
        katyusha_x(0.1, exact(), epoch_length=2, strong_convexity=0)
    tx = svrg(0.1, exact(), epoch_length=2)
    with pytest.raises(TypeError, match=r"snapshot_grads=grads_at"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2))
    with pytest.raises(ValueError, match="`epochs` computes updates"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)), snapshot_grads=jnp.ones(2))
