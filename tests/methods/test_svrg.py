"""Tests of SVRG with one sample; its paper is in test_katyusha_x."""

import inspect
import re
import textwrap
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gmc_jax
from gmc_jax import exact, set_full_gradient, svrg


def test_with_one_sample_it_is_gradient_descent():
    schedule = optax.linear_schedule(0.1, 0.0, 10)
    tx, descent = svrg(schedule, exact(), epoch_length=3), optax.sgd(schedule)

    def gradient(w):
        return w**3 - 1

    def ours(start):
        w, at, state = start, start, tx.init(start)
        for t in range(9):
            if t % 3 == 0:
                state = set_full_gradient(state, w, gradient(w))
                at = w
            updates, state = tx.update(
                gradient(w), state, w, snapshot_grads=gradient(at)
            )
            w = w + updates
        return w

    start = jnp.array([2.0, -1.0])
    w, state = start, descent.init(start)
    updates: Any
    for _ in range(9):
        updates, state = descent.update(gradient(w), state)
        w = w + updates
    end = jax.jit(jax.vmap(ours, axis_name="workers"))(start[None])
    np.testing.assert_allclose(end[0], w, rtol=1e-6)


def test_the_loop_of_the_docstring_runs():
    """Its full gradient is of all samples in one batch, without an axis of workers."""
    draw = np.random.default_rng(0)
    samples = draw.normal(size=(8, 6, 4)).astype(np.float32)
    batches = [samples[:, 3 * half : 3 * half + 3] for half in (0, 1)] * 6
    tx = svrg(0.3, exact(), epoch_length=4)
    doc = inspect.getdoc(svrg) or ""  # From 3.13 on Python takes the indent off itself.
    loop = re.search(r"\n\n(    def step.*?)\n\nArgs", doc, re.S)
    assert loop
    names = {
        "gmc_jax": gmc_jax,
        "optax": optax,
        "tx": tx,
        "params": jnp.zeros(4),
        "batch": batches[0],
        "batches": batches,
        "all_samples": samples.reshape(-1, 4),
        "gradient": jax.grad(lambda w, batch: jnp.mean((w[None] - batch) ** 2)),
    }
    exec(textwrap.dedent(loop[1]), names)
    ends, _ = names["state"]
    assert ends.shape == (4,)
    np.testing.assert_allclose(ends, samples.reshape(-1, 4).mean(axis=0), atol=0.1)
