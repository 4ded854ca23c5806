"""The parts that asynchronous methods share."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gmc_jax.clocks.timelines import Event
from gmc_jax.core import Tree

Gradient: TypeAlias = Callable[[Tree, Tree], tuple[jax.Array, Tree]]
"""`(params, batch) -> (loss, gradient)`, as `jax.value_and_grad` makes it."""


class Asynchronous(NamedTuple):
    """An asynchronous method as an event simulation.

    Attributes:
      init: `params -> state`; all workers start at these parameters.
      step: `(state, event, batch) -> (state, loss)`: applies one gradient, of one
        batch, taken at the parameters that its worker last read. Wrap it in `jax.jit`.
      evaluate: `state -> params`: the point at which the model is evaluated.
    """

    init: Callable[[Tree], Tree]
    step: Callable[[Tree, Event, Tree], tuple[Tree, jax.Array]]
    evaluate: Callable[[Tree], Tree]


def check_event(event: Event, workers: int) -> None:
    """Raises ValueError unless the event fits the number of workers."""
    if np.shape(event.reads) != (workers,):
        raise ValueError(
            f"`event.reads` must have shape ({workers},), one entry for each worker, "
            f"got {np.shape(event.reads)}. Compute the events with "
            "`gmc_jax.timelines` for as many workers as the method has."
        )
    for name, worker in (("worker", event.worker), ("partner", event.partner)):
        if not isinstance(worker, Tracer) and not 0 <= worker < workers:
            raise ValueError(
                f"`event.{name}` must be from 0 to {workers - 1}, got {worker}. "
                "Compute the events with `gmc_jax.timelines` for as many workers as "
                "the method has."
            )


def stack(tree: Tree, workers: int) -> Tree:
    """One copy for each worker, on a leading axis."""
    return jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)] * workers), tree)


def take(tree: Tree, worker: jax.typing.ArrayLike) -> Tree:
    """One worker's entry of a stacked tree."""
    return jax.tree.map(lambda leaf: leaf[worker], tree)


def put(tree: Tree, worker: jax.typing.ArrayLike, one: Tree) -> Tree:
    """A stacked tree with one worker's entry replaced."""
    return jax.tree.map(lambda all_, leaf: all_.at[worker].set(leaf), tree, one)


def read(old: Tree, new: Tree, reads: jax.typing.ArrayLike) -> Tree:
    """What each worker last read: `new` for those in `reads`, `old` for the others."""

    def choose(before: jax.Array, leaf: jax.Array) -> jax.Array:
        mask = jnp.reshape(reads, (-1, *[1] * (before.ndim - 1)))
        return jnp.where(mask, leaf, before)

    return jax.tree.map(choose, old, new)
