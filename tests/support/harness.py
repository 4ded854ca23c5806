"""How tests run a step, a transformation or a channel.

`drive` and `train` run the step under one of `RUNNERS` and return the last state.
`run` trains on a problem of `problems` under `simulate` and returns all states.
`updates` and `walked` feed trees to a transformation, and `average` to a channel.
"""

import functools
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

import gmc_jax
from gmc_jax.core import Tree
from tests.support import problems

WORKERS = 8


# Ways to run a step.


def simulate(step: Callable, state: Tree, batch: Tree, **options):
    """`gmc_jax.simulate` with as many workers as the tests have devices."""
    return gmc_jax.simulate(step, state, batch, WORKERS, **options)


def pmap(step: Callable, state: Tree, batch: Tree):
    """`jax.pmap` with the axes of the layout, as the documentation shows it.

    On CPU the loop must wait for every step, as `drive` does by reading the metrics.
    """
    plan = gmc_jax.layout(step, state, batch, WORKERS)
    axes = (plan.axes, 0)
    run = jax.pmap(step, axis_name="workers", in_axes=axes, out_axes=axes)
    return plan.checked(run), plan.lay_out(state)


RUNNERS = {"simulate": simulate, "distribute": gmc_jax.distribute}
ALL_RUNNERS = {**RUNNERS, "pmap": pmap}

every_runner = pytest.mark.parametrize("runner", RUNNERS.values(), ids=RUNNERS.keys())
# Where only numbers are tested, which runners share. That they do is tested elsewhere.
distribute_if_slow = pytest.mark.parametrize(
    "runner",
    [simulate, pytest.param(gmc_jax.distribute, marks=pytest.mark.slow)],
    ids=RUNNERS.keys(),
)
pmap_too = pytest.mark.parametrize(
    "runner", ALL_RUNNERS.values(), ids=ALL_RUNNERS.keys()
)

close = functools.partial(chex.assert_trees_all_close, rtol=1e-5, atol=1e-6)


def devices(*shape: int) -> np.ndarray:
    """The first devices, in an array for a mesh."""
    return np.array(jax.devices()[: np.prod(shape)]).reshape(shape)


def mesh_of(workers: int) -> Mesh:
    """A mesh of one device for each worker."""
    return Mesh(devices(workers), ("workers",))


# What is trained.


def start(dtype: str = "float32"):
    """Parameters of 20 entries in two leaves, `bias` and `kernel`."""
    return problems.tree(np.linspace(-2, 2, 20).astype(dtype))


def targets(params: Tree, steps: int, seed: int = 0):
    """The target of each worker at each step: a tree of [steps, workers, ...].

    No two workers have the same target, so gradients differ.
    """
    draw = np.random.default_rng(seed)

    def leaf(like):
        values = draw.normal(size=(steps, WORKERS, *jnp.shape(like)))
        return values.astype(jnp.result_type(like))

    return jax.tree.map(leaf, params)


def pull(params: Tree, batch: Tree):
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


# A run that returns the last state.


def drive(runner: Callable, step: Callable, state: Tree, batches: Tree, **options):
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
    batches: Tree,
    params: Tree = None,
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


# Runs that return all states.


def history(step: Callable, state: Tree, batches: Tree) -> tuple[Tree, Tree]:
    """Simulates `step` over `batches`, whose leading axes are steps and workers.

    Returns the states before the first step and after each, stacked, and the stacked
    metrics, all in NumPy.
    """

    def batch(t: int):
        return jax.tree.map(lambda x: x[t], batches)

    def stack(trees: list):
        return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)

    steps, workers = jax.tree.leaves(batches)[0].shape[:2]
    train, state = gmc_jax.simulate(step, state, batch(0), workers)
    # np.array copies. A view of a donated buffer would change with the next step.
    states, metrics = [jax.tree.map(np.array, state)], []
    for t in range(steps):
        state, out = train(state, batch(t))
        states.append(jax.tree.map(np.array, state))
        metrics.append(jax.tree.map(np.array, out))
    return stack(states), stack(metrics)


def run(
    tx: optax.GradientTransformation,
    problem: problems.Problem,
    dtype: type = np.float64,
) -> tuple[np.ndarray, Tree]:
    """Trains on `problem` with the step that every user writes.

    Returns the weights, [steps + 1, d] ([steps + 1, workers, d] where they differ
    between workers), and the stacked states of the transformation.
    """

    def loss_fn(params, batch):
        hessian, target, noise = batch
        weights = jnp.concatenate([x.ravel() for x in jax.tree.leaves(params)])
        residual = weights - target
        return residual @ hessian @ residual / 2 + noise @ weights

    def step(state, batch):
        params, opt_state = state
        loss, grads = jax.value_and_grad(loss_fn)(
            gmc_jax.query(opt_state, params), batch
        )
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    steps = problem.steps
    batches = (
        np.broadcast_to(problem.hessians, (steps, *problem.hessians.shape)),
        np.broadcast_to(problem.targets, (steps, *problem.targets.shape)),
        problem.noise,
    )
    with jax.enable_x64(dtype == np.float64):
        params = problems.tree(problem.start.astype(dtype))
        batches = tuple(x.astype(dtype) for x in batches)
        (weights, states), _ = history(step, (params, tx.init(params)), batches)
    return problems.flat(weights, leading=weights["bias"].ndim - 1), states


def residual(states: Tree, name: str = "residual") -> np.ndarray:
    """The field `name` of the one state that has it, flat: [steps + 1, workers, d]."""
    return problems.flat(optax.tree.get(states, name), leading=2)


def updates(
    tx: optax.GradientTransformation, params: Tree, gradients: Tree
) -> tuple[Tree, Tree]:
    """Feeds gradients, whose leading axes are steps and workers, to `tx`.

    The parameters move by the updates. Returns the updates of all steps and workers,
    and the states of the transformation before the first step and after each.
    """

    (_, states), moved = _fed(tx, params, gradients)
    return moved, states


def moves(steps: int, workers: int = 4) -> Tree:
    """Updates for `start()`, unlike at each worker: trees of [steps, workers, ...]."""
    return jax.tree.map(lambda leaf: leaf[:, :workers], targets(start(), steps))


def walked(tx: optax.GradientTransformation, moves: Tree) -> tuple[np.ndarray, Tree]:
    """Feeds updates, such as `moves`, to `tx` as `updates` does, from `start()`.

    Returns the parameters of all workers, [steps + 1, workers, d], and the states.
    """
    (params, states), _ = _fed(tx, start(), moves)
    return problems.flat(params, leading=2), states


def _fed(tx: optax.GradientTransformation, params: Tree, gradients: Tree) -> Tree:
    """The parameters and states, and the updates of `tx`."""

    def step(state, batch):
        params, opt_state = state
        new, opt_state = tx.update(batch, opt_state, params)
        return (optax.apply_updates(params, new), opt_state), new

    return history(step, (params, tx.init(params)), gradients)


# Channels.


def average(
    channel: gmc_jax.Channel, trees: Tree, state: Tree = None, calls: int = 1
) -> tuple[Tree, Tree, Tree]:
    """Averages trees with a leading axis of workers, the same ones at every call.

    Returns every worker's mean, lost and state of the last call, stacked over workers.
    """
    if state is None:
        state = channel.init(jax.tree.map(lambda leaf: leaf[0], trees))
    workers = next((leaf.shape[0] for leaf in jax.tree.leaves(trees)), 8)
    return _average(channel, workers, calls)(trees, state)


def average_here(channel: gmc_jax.Channel, tree: Tree, state: Tree, calls: int) -> Tree:
    """One worker's mean, lost and state of the last of some calls, inside the axis."""
    mean = lost = None
    for _ in range(calls):
        mean, lost, state = channel.average(tree, state)
    return mean, lost, state


@functools.cache
def _average(channel: gmc_jax.Channel, workers: int, calls: int) -> Callable:
    return jax.jit(
        jax.vmap(
            lambda tree, state: average_here(channel, tree, state, calls),
            in_axes=(0, None),
            axis_size=workers,
            axis_name=channel.axis_name,
        )
    )
