"""Trees whose leaves lie in parts on the devices of a worker.

Under `distribute` on a mesh with other axes beside the workers', XLA splits arrays over
these by itself. What only looks at entries may leave that to it. What flattens leaves,
or chooses among their entries, would have whole leaves gathered on every device, so it
runs on each device's own part instead.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from gmc_jax.channels._wire import run_collective
from gmc_jax.channels.sharded.context import Spec, inside, partition
from gmc_jax.core import Tree
from gmc_jax.utils.trees import to_vectors


class Shards(NamedTuple):
    """How the leaves of a tree lie on the devices of a worker.

    Attributes:
      axes: the axes of the mesh inside a worker, and their sizes.
      shapes: of the whole leaves.
      specs: what each dimension of a leaf is split over.
    """

    axes: dict[str, int]
    shapes: list[tuple[int, ...]]
    specs: list[Spec]

    @property
    def names(self) -> tuple[str, ...]:
        """The axes inside a worker, for collectives over all of its devices."""
        return tuple(self.axes)

    def run(
        self, function: Callable[..., Tree], tree: Tree, *whole: Tree, results: int = 1
    ) -> Tree:
        """Runs a function on every device's own part of a tree.

        Args:
          function: of a part of the tree, and of what is whole; it returns a tuple of
            trees like the first one.
          tree: the tree.
          *whole: arrays that are whole on all devices of the worker.
          results: how many trees it returns.
        """
        specs = jax.tree.structure(tree).unflatten(map(partition, self.specs))
        return jax.shard_map(
            function,
            in_specs=(specs, *(PartitionSpec() for _ in whole)),
            out_specs=(specs,) * results,
            axis_names=set(self.axes),
            check_vma=False,
        )(tree, *whole)

    # What follows is called by such functions.

    def is_first(self) -> jax.Array:
        """Whether this is the first of the worker's devices."""
        return lax.axis_index(self.names) == 0

    def numbers(self, tree: Tree, per_leaf: bool) -> dict[int, jax.Array]:
        """The places of a part's entries in the whole vectors: ascending, int32."""
        sizes = [math.prod(shape) for shape in self.shapes]
        numbers = [
            _numbers(shape, spec, self.axes, 0 if per_leaf else sum(sizes[:leaf]))
            for leaf, (shape, spec) in enumerate(
                zip(self.shapes, self.specs, strict=True)
            )
        ]
        return to_vectors(jax.tree.structure(tree).unflatten(numbers), per_leaf)[0]

    def owned(self, tree: Tree, per_leaf: bool) -> dict[int, jax.Array]:
        """Of which of a part's entries no device before this one has a copy."""

        def first(leaf: jax.Array, spec: Spec) -> jax.Array:
            axes = tuple(axis for axis in self.axes if axis not in sum(spec, ()))
            own = lax.axis_index(axes) == 0 if axes else jnp.array(True)
            return jnp.broadcast_to(own, leaf.shape)

        leaves, treedef = jax.tree.flatten(tree)
        owned = treedef.unflatten(map(first, leaves, self.specs))
        return to_vectors(owned, per_leaf)[0]

    def once(self, tree: Tree, collective: Callable[[list], list]) -> Tree:
        """Puts a tree through a collective that looks only at entries.

        Each device sends its part of what is split, and a slice of what is whole. What
        is split over some axes and not over others is sent once for each of these.

        Args:
          tree: this device's part.
          collective: from a list of arrays to what arrives, in the same shapes.
        """

        def by_slices(flat: jax.Array) -> jax.Array:
            devices = math.prod(self.axes.values())
            slices = jnp.pad(flat, (0, -flat.size % devices)).reshape(devices, -1)
            (arrived,) = collective([slices[lax.axis_index(self.names)]])
            return lax.all_gather(arrived, self.names, tiled=True)[: flat.size]

        leaves, treedef = jax.tree.flatten(tree)
        pairs = list(zip(leaves, self.specs, strict=True))
        split = iter(collective([leaf for leaf, spec in pairs if any(spec)]))
        whole = iter(
            run_collective([leaf for leaf, spec in pairs if not any(spec)], by_slices)
        )
        return treedef.unflatten(
            next(split) if any(spec) else next(whole) for spec in self.specs
        )

    def assembled(
        self, collective: Callable[[jax.Array], jax.Array]
    ) -> Callable[[jax.Array], jax.Array]:
        """The collective between workers for a vector that devices hold shares of.

        Shares are added, each device sends its own slice of the sum to its like in
        other workers, and then the slices that arrived are put together: a worker
        sends a vector once, not once a device.

        Args:
          collective: from a vector to what arrives, behind a leading axis.
        """

        def collect(flat: jax.Array) -> jax.Array:
            devices = math.prod(self.axes.values())
            padded = jnp.pad(flat, (0, -flat.size % devices))
            own = lax.psum_scatter(padded, self.names, tiled=True)
            arrived = collective(own)
            whole = lax.all_gather(arrived, self.names, axis=1, tiled=True)
            return whole[:, : flat.size]

        return collect


def shards_of(tree: Tree) -> Shards | None:
    """How a tree lies inside a worker, or None where a worker is one device.

    Raises:
      ValueError: where the state tells no one way.
    """
    here = inside.value
    if here is None or not jax.tree.leaves(tree):
        return None
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
    return Shards(dict(here.axes), shapes, here.specs(tree))


def _numbers(
    shape: tuple[int, ...], spec: Spec, axes: dict[str, int], start: int
) -> jax.Array:
    """The numbers of a part's entries in its leaf, in the shape of the part."""
    numbers = jnp.array(start, jnp.int32)
    for dimension, (size, split) in enumerate(zip(shape, spec, strict=True)):
        length = size // math.prod(axes[axis] for axis in split)
        first = lax.axis_index(split) * length if split else 0
        stride = math.prod(shape[dimension + 1 :])
        along = (first + jnp.arange(length, dtype=jnp.int32)) * stride
        numbers = numbers[..., None] + along
    return numbers
