"""What channels between neighbours have in common."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from numpy.typing import ArrayLike

from gmc_jax.channels._axis import workers_on
from gmc_jax.channels._collectives import run_collective
from gmc_jax.channels.sharded.shards import Shards, on_shards
from gmc_jax.core import Tree
from gmc_jax.graphs.matchings import Matching, busiest
from gmc_jax.graphs.random_topology import RandomTopology
from gmc_jax.graphs.topology import Topology
from gmc_jax.utils.trees import entries_in, size_in_bits, upcast


class OtherWorkersError(ValueError):
    """A topology and the axis have different numbers of workers.

    Attributes:
      workers: those of the topology.
    """

    def __init__(self, message: str, workers: int):
        """Keeps the number of workers of the topology."""
        super().__init__(message)
        self.workers = workers


def check_workers(
    topology: Topology | RandomTopology, axis_name: str, caller: str
) -> None:
    """Raises ValueError unless the axis has as many workers as the topology."""
    workers = workers_on(axis_name, caller)
    if workers != topology.workers:
        raise OtherWorkersError(
            f"`topology` must have as many workers as the axis {axis_name!r}, which "
            f"has {workers}, got one of {topology.workers}. Make a topology of "
            f"{workers}, such as `topologies.ring({workers})`.",
            topology.workers,
        )


def receive(tree: Tree, matching: Matching, axis_name: str) -> Tree:
    """The tree of the worker that sends to this one, upcast."""

    def permute(leaves: list[jax.Array]) -> list[jax.Array]:
        return run_collective(
            leaves, partial(lax.ppermute, axis_name=axis_name, perm=matching.pairs)
        )

    def send(shards: Shards, tree: Tree) -> tuple[Tree]:
        return (shards.without_duplicates(tree, permute),)

    (received,) = on_shards(send, tree)
    return upcast(received)


def weigh(tree: Tree, weights: ArrayLike, axis_name: str) -> Tree:
    """A tree times the weight of this worker.

    Args:
      tree: of floats.
      weights: [workers]. With the weight 0 the result is 0, even of NaN.
      axis_name: the named axis whose indices are the workers.
    """
    own = jnp.asarray(weights, jnp.result_type(float))[lax.axis_index(axis_name)]

    def times(leaf: jax.Array) -> jax.Array:
        return jnp.where(own == 0, 0, own.astype(leaf.dtype) * leaf)

    return jax.tree.map(times, tree)


def in_turn(rounds: int, mix: Callable[[int], Tree], step: jax.Array) -> Tree:
    """Runs `mix` for the round of a step; rounds are branches of a conditional."""
    if rounds == 1:
        return mix(0)
    return lax.switch(step % rounds, [partial(mix, now) for now in range(rounds)])


def next_call(step: jax.Array, rounds: int) -> jax.Array:
    """The counter of calls plus one; it never overflows int32.

    Before that, the counter goes back by whole cycles of all rounds. A counter that
    stayed at the largest int32 would stay in one round.
    """
    last = jnp.iinfo(jnp.int32).max // rounds * rounds - 1
    return jnp.where(step < last, step + 1, step - last)


def costs(topology: Topology) -> tuple[Callable[[Tree], int], Callable[[Tree], int]]:
    """`bits` and `entries` of a channel: of the busiest worker in the busiest round."""
    return costs_of_copies(max(map(busiest, topology.mixing)))


def costs_of_copies(
    copies: int,
) -> tuple[Callable[[Tree], int], Callable[[Tree], int]]:
    """`bits` and `entries` of a worker that sends a tree so many times."""

    def bits(tree: Tree) -> int:
        shapes = jax.eval_shape(partial(jax.tree.map, jnp.asarray), tree)
        return copies * size_in_bits(shapes)

    return bits, lambda tree: copies * entries_in(tree)
