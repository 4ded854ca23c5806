"""Training that is resized, on quadratics with the same mean for all workers."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import gmc_jax
from gmc_jax import resize
from gmc_jax.core import Tree
from tests.support.harness import start, step_of
from tests.support.methods import COMPOSITIONS

NUMBERS = (8, 4, 2, 6)


def pulls(workers: int, steps: int, first: int = 0) -> Tree:
    """Targets [steps, workers, ...]; in the mean the same for every number."""
    draw = np.random.default_rng(workers)

    def leaf(like):
        apart = draw.normal(size=(steps, workers, *like.shape))
        apart -= apart.mean(axis=1, keepdims=True)
        at = np.arange(first, first + steps).reshape(-1, *[1] * (like.ndim + 1))
        return (apart + np.sin(at)).astype(like.dtype)

    return jax.tree.map(leaf, start())


def one(batches: Tree) -> Tree:
    return jax.tree.map(lambda leaf: leaf[0], batches)


def begun(name: str, workers: int) -> tuple[Callable, Tree, Tree]:
    """The step of one worker, its first state, and a batch of all workers."""
    tx = COMPOSITIONS[name](workers)
    return step_of(tx), (start(), tx.init(start())), one(pulls(workers, 1))


@functools.cache
def layout_and_state(name: str, workers: int) -> tuple[gmc_jax.Layout, Tree]:
    """The layout, and the state of one worker."""
    step, state, batch = begun(name, workers)
    return gmc_jax.layout(step, state, batch, workers), state


@functools.cache
def compiled(name: str, workers: int) -> gmc_jax.Train:
    """With its layout, which is not inferred once more."""
    step, state, batch = begun(name, workers)
    return gmc_jax.simulate(step, state, batch, workers)[0]


def train(name: str, workers: int, steps: int, first: int = 0, state: Tree = None):
    """Some steps, from a kept state or from the start; losses [steps]."""
    run = compiled(name, workers)
    if state is None:
        state = run.layout.lay_out(begun(name, workers)[1])
    batches = pulls(workers, steps, first)
    losses = []
    for t in range(steps):
        state, metrics = run(state, jax.tree.map(lambda leaf, t=t: leaf[t], batches))
        losses.append(float(metrics["loss"].mean()))
    return state, losses


@functools.cache
def trained(name: str) -> Tree:
    """After six steps of eight workers."""
    state, _ = train(name, 8, 6)
    return gmc_jax.fetch(state)


def resized(name: str, numbers=NUMBERS) -> list[tuple[gmc_jax.Layout, Tree]]:
    """Layouts and states as they are resized from the first number to the last."""
    state = trained(name)
    found = [(compiled(name, numbers[0]).layout, state)]
    for workers in numbers[1:]:
        state = resize(state, found[-1][0], workers)
        found.append((layout_and_state(name, workers)[0], state))
    return found


def made_up(layout: gmc_jax.Layout) -> Tree:
    """Some kept state, of numbers from 1 to 2."""
    draw = np.random.default_rng(0)

    def leaf(one):
        if jnp.issubdtype(one.dtype, jnp.floating):
            return draw.uniform(1, 2, size=one.shape).astype(one.dtype)
        return np.ones(one.shape, one.dtype)

    return jax.tree.map(leaf, layout.kept)


def mean(tree: Tree) -> Tree:
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64).mean(axis=0), tree)
