"""What channels between neighbours have in common."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from numpy.typing import ArrayLike

from gmc_jax.channels._axis import workers_on
from gmc_jax.channels._wire import run_collective
from gmc_jax.channels.sharded.shards import shards_of
from gmc_jax.core import Tree
from gmc_jax.graphs.matchings import Matching
from gmc_jax.graphs.topology import Topology
from gmc_jax.utils.trees import entries_in, size_in_bits, upcast


class OtherWorkersError(ValueError):
    """A topology stands on an axis of another number of workers.

    Attributes:
      workers: of the topology.
    """

    def __init__(self, message: str, workers: int):
        """An error that says of how many."""
        super().__init__(message)
        self.workers = workers


def check_workers(topology: Topology, axis_name: str, caller: str) -> None:
    """Raises ValueError unless the axis has as many workers as the topology."""
    workers = workers_on(axis_name, caller)
    if workers != topology.workers:
        raise OtherWorkersError(
            f"`topology` is of {topology.workers} workers, but the axis {axis_name!r} "
            f"has {workers}. Make it for as many.",
            topology.workers,
        )


def receive(tree: Tree, matching: Matching, axis_name: str) -> Tree:
    """What arrives of the tree of another, in float32 for 16-bit trees."""

    def send(tree: Tree) -> Tree:
        return run_collective(
            tree, partial(lax.ppermute, axis_name=axis_name, perm=matching.pairs)
        )

    parts = shards_of(tree)
    if parts is None:
        return upcast(send(tree))
    (heard,) = parts.run(lambda tree: (parts.once(tree, send),), tree)
    return upcast(heard)


def weigh(tree: Tree, weights: ArrayLike, axis_name: str) -> Tree:
    """A tree times this worker's weight out of those of all, [workers].

    Without a weight it is zero, even of what is no number.
    """
    own = jnp.asarray(weights, jnp.result_type(float))[lax.axis_index(axis_name)]

    def times(leaf: jax.Array) -> jax.Array:
        return jnp.where(own == 0, 0, own.astype(leaf.dtype) * leaf)

    return jax.tree.map(times, tree)


def in_turn(rounds: int, mix: Callable[[int], Tree], step: jax.Array) -> Tree:
    """What a round gives, the rounds being branches of a conditional on the step."""
    if rounds == 1:
        return mix(0)
    return lax.switch(step % rounds, [partial(mix, now) for now in range(rounds)])


def next_call(step: jax.Array, rounds: int) -> jax.Array:
    """The calls so far, one more; by whole turns of all rounds less before int32 ends.

    A counter that stayed at the largest int32 would stay in one round for ever.
    """
    last = jnp.iinfo(jnp.int32).max // rounds * rounds - 1
    return jnp.where(step < last, step + 1, step - last)


def costs(topology: Topology) -> tuple[Callable[[Tree], int], Callable[[Tree], int]]:
    """The bits, and the entries, that the busiest worker sends in the busiest round."""
    messages = max(
        sum((worker, worker) not in matching.pairs for matching in one_round)
        for worker in range(topology.workers)
        for one_round in topology.matchings
    )

    def bits(tree: Tree) -> int:
        shapes = jax.eval_shape(partial(jax.tree.map, jnp.asarray), tree)
        return messages * size_in_bits(shapes)

    return bits, lambda tree: messages * entries_in(tree)
