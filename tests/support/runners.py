"""The ways to run a step, one loop for all of them, and a loss for any parameters."""

import functools
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from tests.support import problems

WORKERS = 8


def simulate(step: Callable, state, batch, **options):
    """`gmc_jax.simulate` with as many workers as the tests have devices."""
    return gmc_jax.simulate(step, state, batch, WORKERS, **options)


def pmap(step: Callable, state, batch):
    """`jax.pmap` with the axes of the layout, as the documentation has it.

    On CPU its loop must wait for every step, as `drive` does by reading the metrics.
    """
    plan = gmc_jax.layout(step, state, batch, WORKERS)
    axes = (plan.axes, 0)
    run = jax.pmap(step, axis_name="workers", in_axes=axes, out_axes=axes)
    return plan.checked(run), plan.lay_out(state)


RUNNERS = {"simulate": simulate, "distribute": gmc_jax.distribute}

close = functools.partial(chex.assert_trees_all_close, rtol=1e-5, atol=1e-6)

every_runner = pytest.mark.parametrize("runner", RUNNERS.values(), ids=RUNNERS.keys())


def start(dtype: str = "float32"):
    """Parameters of 20 entries in two leaves, `bias` and `kernel`."""
    return problems.tree(np.linspace(-2, 2, 20).astype(dtype))


def targets(params, steps: int, seed: int = 0):
    """Where workers pull to, in steps: a tree of [steps, workers, ...].

    No worker ever pulls to where another does, so that gradients differ.
    """
    draw = np.random.default_rng(seed)

    def leaf(like):
        values = draw.normal(size=(steps, WORKERS, *jnp.shape(like)))
        return values.astype(jnp.result_type(like))

    return jax.tree.map(leaf, params)


def pull(params, batch):
    """Half the squared distance to the target; its gradient is the difference."""
    gaps = jax.tree.map(lambda w, b: (w - b).astype(jnp.float32), params, batch)
    return sum(jnp.sum(gap**2) for gap in jax.tree.leaves(gaps)) / 2


def step_of(tx: optax.GradientTransformation, loss_fn: Callable = pull):
    """The step of one worker that every user writes."""

    def step(state, batch):
        params, opt_state = state
        loss, grads = jax.value_and_grad(loss_fn)(
            gmc_jax.query(opt_state, params), batch
        )
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), {"loss": loss}

    return step


def drive(runner: Callable, step: Callable, state, batches, **options):
    """Runs a step over batches, whose leading axes are steps and workers.

    Returns the last state, as it is kept, and the stacked metrics, all in NumPy.
    """

    def batch(t: int):
        return jax.tree.map(lambda x: x[t], batches)

    run, state = runner(step, state, batch(0), **options)
    metrics = []
    for t in range(jax.tree.leaves(batches)[0].shape[0]):
        state, out = run(state, batch(t))
        metrics.append(gmc_jax.fetch(out))
    return gmc_jax.fetch(state), jax.tree.map(lambda *x: np.stack(x), *metrics)


def train(
    runner: Callable,
    tx: optax.GradientTransformation,
    batches,
    params=None,
    loss_fn: Callable = pull,
):
    """Trains parameters, which must stay the same on all workers.

    Returns the last parameters and the last state of the transformation, in NumPy.
    """
    params = start() if params is None else params
    state = params, tx.init(params)
    step = step_of(tx, loss_fn)
    state, _ = drive(runner, step, state, batches, replicated=lambda state: state[0])
    return state
