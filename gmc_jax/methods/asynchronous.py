"""What methods without a common step have in common."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from gmc_jax.core import Tree

Gradient: TypeAlias = Callable[[Tree, Tree], tuple[jax.Array, Tree]]
"""From parameters and a batch to the loss and its gradients: `jax.value_and_grad`."""


class Event(NamedTuple):
    """One gradient that is applied: a row of `gmc_jax.timelines.Events`.

    Attributes:
      worker: int, whose gradient it is.
      partner: int, with whom that worker averages first; itself for nobody.
      reads: [workers] bool, who reads the parameters right after.
    """

    worker: jax.typing.ArrayLike
    partner: jax.typing.ArrayLike
    reads: jax.typing.ArrayLike


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
