"""A step whose batch is one vector a worker, with a loss that is not quadratic."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gmc_jax import all_gather, gmc, query, top_k
from tests.support.harness import WORKERS, start

STEPS, D = 12, 20
GMC = gmc(0.01, all_gather(top_k(0.2)))


@functools.cache
def targets(workers: int = WORKERS):
    """The target of each worker at each step: [STEPS, workers, D]."""
    draw = np.random.default_rng(0)
    values = draw.normal(size=(STEPS, WORKERS, D))[:, :workers]
    return values.astype(np.float32)


def loss_fn(params, target):
    weights = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])
    return jnp.sum(jnp.cosh(weights - target))


def step_of(tx):
    """The step that every user writes; its metrics have the gradients it took."""

    def step(state, batch):
        params, opt_state = state
        loss, grads = jax.value_and_grad(loss_fn)(query(opt_state, params), batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        seen = {"loss": loss, "grads": grads, "params": params}
        return (optax.apply_updates(params, updates), opt_state), seen

    return step


def state_of(tx: optax.GradientTransformation = GMC):
    """One worker's state before the first step."""
    return start(), tx.init(start())


def drive(runner, step, state, batches):
    """The last state where it lies, and the metrics of all steps in NumPy."""
    train, state = runner(step, state, batches[0])
    metrics = []
    for batch in batches:
        state, out = train(state, batch)
        metrics.append(jax.tree.map(np.array, out))
    return state, jax.tree.map(lambda *leaves: np.stack(leaves), *metrics)


def drive_tx(runner, tx, batches=None):
    """Runs the step of a method from its first state."""
    batches = targets() if batches is None else batches
    return drive(runner, step_of(tx), state_of(tx), batches)
