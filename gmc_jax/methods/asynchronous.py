"""What methods without a common step have in common."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gmc_jax.clocks.timelines import Event
from gmc_jax.core import Tree

Gradient: TypeAlias = Callable[[Tree, Tree], tuple[jax.Array, Tree]]
"""From parameters and a batch to the loss and its gradients: `jax.value_and_grad`."""


class Asynchronous(NamedTuple):
    """A method whose workers do not step together, as an event simulation.

    Attributes:
      init: `params -> state`, all workers at these parameters.
      step: `(state, event, batch) -> (state, loss)`: one gradient, of one batch, at
        what its worker last read; to be jitted.
      evaluate: `state -> params`: where the model is judged.
    """

    init: Callable[[Tree], Tree]
    step: Callable[[Tree, Event, Tree], tuple[Tree, jax.Array]]
    evaluate: Callable[[Tree], Tree]


def check_event(event: Event, workers: int) -> None:
    """Raises ValueError unless an event is one of so many workers."""
    if np.shape(event.reads) != (workers,):
        raise ValueError(
            f"`event` must say of each of {workers} workers whether it reads, but "
            f"its `reads` has shape {np.shape(event.reads)}. Make `gmc_jax.timelines` "
            "of as many workers as the method has."
        )
    for name, worker in (("worker", event.worker), ("partner", event.partner)):
        if not isinstance(worker, Tracer) and not 0 <= worker < workers:
            raise ValueError(
                f"`event` must have a {name} from 0 to {workers - 1}, but has {worker}."
            )


def stack(tree: Tree, workers: int) -> Tree:
    """A copy for each worker, on a leading axis."""
    return jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)] * workers), tree)


def take(tree: Tree, worker: jax.typing.ArrayLike) -> Tree:
    """One worker's."""
    return jax.tree.map(lambda leaf: leaf[worker], tree)


def put(tree: Tree, worker: jax.typing.ArrayLike, one: Tree) -> Tree:
    """All workers', one of them replaced."""
    return jax.tree.map(lambda all_, leaf: all_.at[worker].set(leaf), tree, one)


def read(old: Tree, new: Tree, reads: jax.typing.ArrayLike) -> Tree:
    """What workers know, where those who read know the new."""

    def choose(known: jax.Array, leaf: jax.Array) -> jax.Array:
        mask = jnp.reshape(reads, (-1, *[1] * (known.ndim - 1)))
        return jnp.where(mask, leaf, known)

    return jax.tree.map(choose, old, new)
