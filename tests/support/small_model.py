"""A model of 30 parameters on 8 workers, for tests of what its steps send."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gmc_jax

WORKERS = 8
D = 30


def params(dtype="float32"):
    draw = np.random.default_rng(0)
    return {
        "bias": jnp.asarray(draw.normal(size=10), dtype),
        "kernel": jnp.asarray(draw.normal(size=(4, 5)), dtype),
    }


def gradients(dtype="float32", steps=None):
    """Different gradients for each worker, [workers, ...] or [steps, workers, ...]."""
    draw = np.random.default_rng(1)
    lead = (WORKERS,) if steps is None else (steps, WORKERS)
    return jax.tree.map(
        lambda x: draw.normal(size=(*lead, *x.shape)).astype(x.dtype), params(dtype)
    )


def step_of(tx):
    """A step whose batch is the worker's gradient."""

    def step(state, batch):
        params, opt_state = state
        updates, opt_state = tx.update(batch, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    return step


def distributed(tx, dtype="float32"):
    """The training function under `distribute`, and its arguments."""
    batch = gradients(dtype)
    state = params(dtype), tx.init(params(dtype))
    train, state = gmc_jax.distribute(step_of(tx), state, batch)
    return train, state, batch
