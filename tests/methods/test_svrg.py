"""Tests of SVRG with one sample; its paper is in test_katyusha_x."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

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
