"""Tests of the numbers about a method's state, against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gmc_jax
from gmc_jax import all_gather, count_bytes, exact, metrics, top_k
from gmc_jax.execution.metrics import _roots
from tests.support.harness import (
    WORKERS,
    pmap_too,
    start,
    step_of,
    targets,
)

STEPS = 3
SPARSE = all_gather(top_k(0.2))
METHODS = {
    "gmc": gmc_jax.skip_nonfinite(
        optax.chain(optax.identity(), gmc_jax.gmc(0.1, count_bytes(SPARSE)))
    ),
    "cser": gmc_jax.cser(
        0.1, count_bytes(SPARSE), count_bytes(exact()), period=2, momentum=0.9
    ),
    "local": gmc_jax.local_sgd(0.1, exact(), period=4),
    "left out": gmc_jax.leave_out_nonfinite(gmc_jax.gmc(0.1, SPARSE)),
}
GUARDED = {"gmc", "left out"}


def batches():
    """Targets; one worker's is not a number in the second step."""
    drawn = targets(start(), STEPS)
    drawn["bias"][1, 3, 0] = np.nan
    return drawn


@functools.cache
def trained(runner):
    """All methods in one step, so that it is compiled once; and the layout."""

    def step(state, batch):
        finite = jax.tree.map(jnp.nan_to_num, batch)
        seen = {
            name: step_of(tx)(state[name], batch if name in GUARDED else finite)[0]
            for name, tx in METHODS.items()
        }
        return seen, jnp.zeros(())

    state = {name: (start(), tx.init(start())) for name, tx in METHODS.items()}
    train, state = runner(step, state, jax.tree.map(lambda x: x[0], batches()))
    for t in range(STEPS):
        state, done = train(state, jax.tree.map(lambda x, t=t: x[t], batches()))
        jax.block_until_ready(done)
    return state, train.layout


def of(runner, name, with_params=True):
    state, layout = trained(runner)
    params, opt_state = state[name]
    own = layout.of(lambda state: state[name])
    return metrics(opt_state, own, params if with_params else None)


def norm(tree):
    """The root of the mean over workers of squared norms."""
    leaves = jax.tree.leaves(gmc_jax.fetch(tree))
    return np.sqrt(sum(np.sum(leaf.astype(float) ** 2) for leaf in leaves) / WORKERS)


@pmap_too
def test_metrics_of_error_feedback_behind_guards(runner):
    state, _ = trained(runner)
    found = of(runner, "gmc")
    assert found == {
        "residual_norm": pytest.approx(
            norm(optax.tree.get(state["gmc"][1], "residual")), rel=1e-5
        ),
        "disagreement": 0,
        "bytes_sent": (STEPS - 1) * gmc_jax.message_bits(SPARSE, start()) // 8,
        "skipped_steps": 1,
    }
    assert found["residual_norm"] > 1
    assert {type(value) for value in found.values()} == {float, int}

    found = of(runner, "left out", with_params=False)
    assert (found.pop("skipped_steps"), found.pop("left_out")) == (0, 1)
    assert found.keys() == {"residual_norm"}


@pmap_too
def test_metrics_of_workers_that_differ(runner):
    state, _ = trained(runner)
    for name in ("local", "cser"):
        params = gmc_jax.fetch(state[name][0])
        apart = jax.tree.map(lambda leaf: leaf - leaf.mean(axis=0), params)
        found = of(runner, name)
        assert found.pop("disagreement") == pytest.approx(norm(apart), rel=1e-5)
        assert norm(apart) > 0.1
        if name == "local":
            assert found == {}
    errors = norm(optax.tree.get(state["cser"][1], "error"))
    bits = gmc_jax.message_bits(METHODS["cser"], start(), steps=STEPS)
    assert found == {
        "residual_norm": pytest.approx(errors, rel=1e-5),
        "bytes_sent": round(STEPS * bits) // 8,
    }


def test_a_residual_that_all_workers_share_is_their_mean():
    """An exact channel loses nothing, and one worker has no others."""
    tx = gmc_jax.gmc(0.1, SPARSE)
    one = jax.tree.map(lambda leaf: leaf[0, :1], targets(start(), 1))
    train, state = gmc_jax.simulate(step_of(tx), (start(), tx.init(start())), one, 1)
    state, _ = train(state, one)
    residual = optax.tree.get(state[1], "residual")
    found = metrics(state[1], train.layout, params=state[0])
    assert found["residual_norm"] == pytest.approx(norm(residual) * WORKERS**0.5)


def test_the_residual_sends_numbers_alone_and_makes_no_copies():
    """Compiled for workers on their own devices."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("workers",))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("workers"))
    leaf = jax.ShapeDtypeStruct((WORKERS, 4096), "float32", sharding=spread)

    def residuals(tree):
        return _roots({"residual_norm": tree}, {}, (("residual_norm", (True, True)),))

    assert gmc_jax.wire_bytes(residuals, [leaf, leaf]) <= 8
    memory = jax.jit(residuals).lower([leaf, leaf]).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 4096


def test_states_that_nnx_took_apart_are_an_error():
    """Not a dictionary without the norms that were asked for."""
    tx = METHODS["gmc"]
    model = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
    graph, state = nnx.split((model, nnx.Optimizer(model, tx, wrt=nnx.Param)))

    def pure(state):
        return nnx.as_pure(nnx.merge(graph, state)[1].opt_state)

    def step(state, batch):
        model, optimizer = nnx.merge(graph, state)
        grads = nnx.grad(lambda model: jnp.mean(model(batch) ** 2))(model)
        optimizer.update(model, grads)
        return nnx.split((model, optimizer))[1], {}

    layout = gmc_jax.layout(step, state, np.ones((WORKERS, 2, 3), np.float32), WORKERS)
    kept = layout.lay_out(state)
    with pytest.raises(ValueError, match=r"`metrics` needs each `.*layout.of\(pure\)"):
        metrics(kept[1], layout)
    found = metrics(pure(kept), layout.of(pure))
    assert found == {"residual_norm": 0, "bytes_sent": 0, "skipped_steps": 0}


def test_what_is_no_layout_is_an_error():
    with pytest.raises(TypeError, match="`layout` must be a `Layout`"):
        metrics((), None)  # pyright: ignore[reportArgumentType]
