"""Problems whose noise is an array, so that every run meets the same numbers."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gmc_jax
from gmc_jax.core import Tree


class Problem(NamedTuple):
    """Quadratics that disagree: worker k at step t loses r H_k r / 2 + noise_tk w.

    Here r = w - targets_k. The parameters are a tree of two leaves, and a flat vector
    in the order of the leaves is what NumPy works on.
    """

    hessians: np.ndarray  # [workers, d, d]
    targets: np.ndarray  # [workers, d]
    noise: np.ndarray  # [steps, workers, d]
    start: np.ndarray  # [d]

    @property
    def workers(self) -> int:
        """How many workers there are."""
        return self.targets.shape[0]

    @property
    def steps(self) -> int:
        """For how many steps the noise lasts."""
        return self.noise.shape[0]

    def gradient(self, worker: int, step: int, weights: np.ndarray) -> np.ndarray:
        """One worker's own gradient."""
        residual = weights - self.targets[worker]
        return self.hessians[worker] @ residual + self.noise[step, worker]

    def mean_gradient(self, step: int, weights: np.ndarray) -> np.ndarray:
        """The mean of the workers' gradients at one point."""
        everyone = range(self.workers)
        return np.mean([self.gradient(k, step, weights) for k in everyone], axis=0)

    @property
    def optimum(self) -> np.ndarray:
        """Where the mean of all losses is least, but for the noise, [d]."""
        pulls = np.einsum("kij,kj->i", self.hessians, self.targets)
        return np.linalg.solve(self.hessians.sum(axis=0), pulls)


def quadratics(
    workers: int = 4, steps: int = 50, d: int = 20, seed: int = 0
) -> Problem:
    """Returns a problem whose Hessians have eigenvalues from about 0.5 to 2."""
    draw = np.random.default_rng(seed)
    bases = np.linalg.qr(draw.normal(size=(workers, d, d)))[0]
    curvatures = draw.uniform(0.5, 2.0, size=(workers, d))
    return Problem(
        hessians=np.einsum("kij,kj,klj->kil", bases, curvatures, bases),
        targets=draw.normal(size=(workers, d)),
        noise=0.3 * draw.normal(size=(steps, workers, d)),
        start=3 * draw.normal(size=d),
    )


def tree(vector: jax.typing.ArrayLike) -> dict[str, jax.Array]:
    """A vector of at least five entries as parameters, leaves in its order."""
    vector = jnp.asarray(vector)
    return {"bias": vector[:4], "kernel": vector[4:].reshape(2, -1)}


def flat(params: Tree, leading: int = 0) -> np.ndarray:
    """The parameters as vectors again, behind `leading` axes of steps or workers."""
    leaves = [x.reshape(*x.shape[:leading], -1) for x in jax.tree.leaves(params)]
    return np.concatenate(leaves, axis=-1)


def drive(step: Callable, state: Tree, batches: Tree) -> tuple[Tree, Tree]:
    """Runs `step` over `batches`, whose leading axes are steps and workers.

    Returns the states before the first step and after each, stacked, and the stacked
    metrics, all of them NumPy arrays.
    """

    def batch(t: int):
        return jax.tree.map(lambda x: x[t], batches)

    def stack(trees: list):
        return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)

    steps, workers = jax.tree.leaves(batches)[0].shape[:2]
    train, state = gmc_jax.simulate(step, state, batch(0), workers)
    # np.array copies: a view of a donated buffer would change under our eyes.
    states, metrics = [jax.tree.map(np.array, state)], []
    for t in range(steps):
        state, out = train(state, batch(t))
        states.append(jax.tree.map(np.array, state))
        metrics.append(jax.tree.map(np.array, out))
    return stack(states), stack(metrics)


def run(
    tx: optax.GradientTransformation, problem: Problem, dtype: type = np.float64
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
        params = tree(problem.start.astype(dtype))
        batches = tuple(x.astype(dtype) for x in batches)
        (weights, states), _ = drive(step, (params, tx.init(params)), batches)
    return flat(weights, leading=weights["bias"].ndim - 1), states


def updates(
    tx: optax.GradientTransformation, params: Tree, gradients: Tree
) -> tuple[Tree, Tree]:
    """Feeds gradients with leading axes of steps and workers to `tx`.

    The parameters move by what comes out. Returns the updates of all steps and
    workers, and the states of the transformation before and after each step.
    """

    def step(state, batch):
        params, opt_state = state
        new, opt_state = tx.update(batch, opt_state, params)
        return (optax.apply_updates(params, new), opt_state), new

    (_, states), moved = drive(step, (params, tx.init(params)), gradients)
    return moved, states


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


def residual(states: Tree, name: str = "residual") -> np.ndarray:
    """The field `name` of the one state that has it, flat: [steps + 1, workers, d]."""
    return flat(optax.tree.get(states, name), leading=2)
