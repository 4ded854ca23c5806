"""Tests that all runners give the same numbers, and each worker its own gradient."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import (
    accumulate,
    all_gather,
    all_reduce,
    exact,
    gmc,
    random_k,
    skip_nonfinite,
    top_k,
)
from tests.support import problems
from tests.support.channels import CHANNELS
from tests.support.harness import (
    ALL_RUNNERS,
    WORKERS,
    close,
    every_runner,
    pmap,
    pmap_too,
    simulate,
)
from tests.support.vector_steps import (
    GMC,
    D,
    drive,
    drive_tx,
    loss_fn,
    state_of,
    step_of,
    targets,
)

# One of each way to send: `tests/channels/test_laws.py` compares the devices of all
# channels with the simulation, and `test_runners` all methods on all runners.
METHODS = {
    **{
        name: gmc(0.01, CHANNELS[name].channel)
        for name in (
            *("exact", "top_k", "late top_k", "random_block per leaf", "threshold"),
            *("majority_vote", "mean_of_senders", "join_channels"),
            "joined quantisers",
        )
    },
    "accumulated": accumulate(GMC, 3),
    "guarded": skip_nonfinite(GMC),
}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_simulate_distribute_and_pmap_agree(method):
    tx = METHODS[method]
    state, metrics = drive_tx(simulate, tx)
    for other in (gmc_jax.distribute, pmap):
        other_state, other_metrics = drive_tx(other, tx)
        close(metrics, other_metrics)
        ours, others = (jax.tree.map(np.array, each) for each in (state, other_state))
        if method == "joined quantisers":  # A residual is the rest of what is near 10.
            chex.assert_trees_all_close(ours, others, rtol=1e-5, atol=1e-5)
        else:
            close(ours, others)
        gmc_jax.assert_replicated(other_state)
    # Parameters moved, and were the same on all workers.
    weights = problems.flat(metrics["params"], leading=2)
    assert np.abs(weights[-1] - weights[0]).max() > 0.01
    np.testing.assert_array_equal(weights, weights[:, :1].repeat(WORKERS, axis=1))


GRADIENTS = {
    "plain": jax.grad(loss_fn),
    "jit": jax.jit(jax.grad(loss_fn)),
    "checkpoint": jax.grad(jax.checkpoint(loss_fn)),
    "vmap over examples": lambda params, batch: jax.tree.map(
        lambda leaf: leaf.sum(axis=0),
        jax.vmap(jax.grad(loss_fn), in_axes=(None, 0))(params, batch[None]),
    ),
    "scan": lambda params, batch: jax.lax.scan(
        lambda sums, target: (
            jax.tree.map(jnp.add, sums, jax.grad(loss_fn)(params, target)),
            None,
        ),
        jax.tree.map(jnp.zeros_like, params),
        batch[None],
    )[0],
    "vjp": lambda params, batch: jax.vjp(lambda w: loss_fn(w, batch), params)[1](1.0)[
        0
    ],
    "forward": lambda params, batch: jax.jacfwd(loss_fn)(params, batch),
    "unrolled": gmc_jax.unrolled(jax.grad(loss_fn)),
}


@pytest.mark.parametrize(
    ("how", "runner"),
    [
        pytest.param(
            how,
            runner,
            # The hazard is one of `shard_map`.
            marks=()
            if how == "plain" or runner is gmc_jax.distribute
            else pytest.mark.slow,
            id=f"{how}-{name}",
        )
        for how in GRADIENTS
        for name, runner in ALL_RUNNERS.items()
    ],
)
def test_gradients_inside_the_step_are_each_workers_own(how, runner):
    """Not summed over workers behind our back, as `shard_map` by default does."""
    tx = GMC

    def step(state, batch):
        params, opt_state = state
        grads = GRADIENTS[how](params, batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), (params, grads)

    state = state_of(tx)
    _, (params, grads) = drive(runner, step, state, targets()[:3])

    expected = jax.vmap(jax.vmap(jax.grad(loss_fn)))(params, targets()[:3])
    close(grads, jax.tree.map(np.array, expected))
    for worker in range(1, WORKERS):
        for leaf in jax.tree.leaves(grads):
            assert np.abs(leaf[:, worker] - leaf[:, 0]).max() > 0.1


@pmap_too
def test_metrics_of_any_kind_have_a_leading_axis_of_workers(runner):
    def step(state, batch):
        metrics = {
            "own": batch.sum(),
            "same": jax.lax.psum(1.0, "workers"),
            "number": 2.5,
            "vector": batch,
            "flag": batch[0] > 0,
            "count": jnp.int32(3),
            "nothing": None,
        }
        return state + jax.lax.pmean(batch, "workers"), metrics

    batch = targets()[0]
    train, state = runner(step, jnp.zeros(D), batch)
    _, metrics = train(state, batch)

    np.testing.assert_allclose(metrics.pop("own"), batch.sum(axis=1), rtol=1e-5)
    assert metrics.pop("nothing") is None
    np.testing.assert_array_equal(metrics.pop("vector"), batch)
    np.testing.assert_array_equal(metrics.pop("flag"), batch[:, 0] > 0)
    for name, value in {"same": WORKERS, "number": 2.5, "count": 3}.items():
        np.testing.assert_array_equal(metrics[name], [value] * WORKERS)
    assert metrics["count"].dtype == np.int32


@pmap_too
def test_one_array_may_occur_twice_in_the_state(runner):
    """An anchor that starts as the parameters, and a step that returns it so."""

    def step(state, batch):
        params, anchor = state
        params = params + jax.lax.pmean(batch, "workers")
        return (params, jnp.where(batch[0] < 99, params, anchor)), anchor.sum()

    def alias(state, batch):
        params = state[0] + jax.lax.pmean(batch, "workers")
        return (params, params), params.sum()

    for fn in (step, alias):
        params = jnp.zeros(D)
        state, _ = drive(runner, fn, (params, params), targets()[:3])
        expected = targets()[:3].mean(axis=1).sum(axis=0)
        np.testing.assert_allclose(state[0], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(params, np.zeros(D))


# What a state may hold.


@every_runner
def test_float64_states_keep_their_precision(runner):
    with jax.enable_x64(True):
        tx = gmc(0.01, exact())
        params = problems.tree(np.linspace(-2, 2, D))
        batches = targets()[:3].astype(np.float64)
        state, _ = drive(runner, step_of(tx), (params, tx.init(params)), batches)
        assert {leaf.dtype for leaf in jax.tree.leaves(state[0])} == {np.dtype("f8")}
        weights = np.linspace(-2, 2, D)
        momentum = 0
        for t in range(3):
            momentum = 0.9 * momentum + np.sinh(weights - targets()[t]).mean(axis=0)
            weights = weights - 0.01 * momentum
        np.testing.assert_allclose(
            problems.flat(jax.tree.map(np.array, state[0])), weights, rtol=1e-13
        )


# Errors.


@pytest.mark.parametrize(
    ("wrapped", "caller"),
    [
        (lambda: gmc(0.1, all_gather(top_k(0.2))), "all_gather"),
        (lambda: gmc(0.1, all_reduce(random_k(0.2))), "all_reduce"),
        (lambda: gmc(0.1, exact()), "exact"),
        (lambda: skip_nonfinite(optax.sgd(0.1)), "skip_nonfinite"),
    ],
)
def test_outside_the_axis_the_error_says_how_to_get_inside(wrapped, caller):
    tx = wrapped()
    message = rf"`{caller}` needs .* 'workers'.*`gmc_jax.simulate`.*distribute"
    state = state_of(tx)
    with pytest.raises(NameError, match=message):
        step_of(tx)(state, targets()[0, 0])
    with pytest.raises(NameError, match=message):
        jax.jit(step_of(tx))(state, targets()[0, 0])
    with pytest.raises(NameError, match=message):
        gmc_jax.simulate(step_of(tx), state, targets()[0], 8, axis_name="replicas")
