"""Trees whose leaves are split over the devices of a worker.

Under `distribute`, on a mesh with other axes beside the workers', a worker has several
devices and each holds a shard of every split leaf. XLA partitions elementwise work by
itself. Work that flattens leaves, or selects among their entries, would make XLA gather
whole leaves on every device. Channels run such work on each device's own shards.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from gmc_jax.channels._collectives import run_collective
from gmc_jax.channels.sharded.context import Spec, current, partition
from gmc_jax.core import Tree
from gmc_jax.utils.vectors import to_vectors


class Shards(NamedTuple):
    """How the leaves of a tree are split over the devices of a worker.

    Its methods are for functions that `on_shards` runs.

    Attributes:
      axes: the axes of the mesh inside a worker and their sizes; none where a worker
        has one device.
      shapes: of the whole leaves.
      specs: the axes that each dimension of a leaf is split over.
    """

    axes: dict[str, int]
    shapes: list[tuple[int, ...]]
    specs: list[Spec]

    @property
    def names(self) -> tuple[str, ...]:
        """The axes inside a worker, for collectives over all of its devices."""
        return tuple(self.axes)

    def is_first(self) -> jax.Array:
        """Whether this is the first of the worker's devices."""
        return lax.axis_index(self.names) == 0

    def axes_of(self, leaf: int) -> tuple[str, ...]:
        """The axes that a leaf is split over."""
        return sum(self.specs[leaf], ())

    def copied_over(self, leaf: int) -> tuple[str, ...]:
        """The axes whose devices hold copies of the same shard of a leaf."""
        return tuple(axis for axis in self.axes if axis not in self.axes_of(leaf))

    def whole(self, tree: Tree) -> list[jax.ShapeDtypeStruct]:
        """The whole leaves whose shards make a tree."""
        return [
            jax.ShapeDtypeStruct(shape, jnp.result_type(leaf))
            for shape, leaf in zip(self.shapes, jax.tree.leaves(tree), strict=True)
        ]

    def of_first(self, tree: Tree, axes: tuple[str, ...]) -> Tree:
        """A tree on the first device along some axes, and zeros on the others."""
        if not axes:
            return tree
        first = lax.axis_index(axes) == 0
        return jax.tree.map(
            lambda leaf: jnp.where(first, leaf, jnp.zeros_like(leaf)), tree
        )

    def global_indices(self, tree: Tree, per_leaf: bool) -> dict[int, jax.Array]:
        """The indices of a shard's entries in the whole vectors: ascending, int32."""
        sizes = [math.prod(shape) for shape in self.shapes]
        indices = [
            _global_indices(
                shape, spec, self.axes, 0 if per_leaf else sum(sizes[:leaf])
            )
            for leaf, (shape, spec) in enumerate(
                zip(self.shapes, self.specs, strict=True)
            )
        ]
        return to_vectors(jax.tree.structure(tree).unflatten(indices), per_leaf)[0]

    def is_owner(self, tree: Tree, per_leaf: bool) -> dict[int, jax.Array]:
        """Whether this device is the first that holds an entry, for each entry."""
        leaves, treedef = jax.tree.flatten(tree)
        owners = [
            self.of_first(jnp.ones(jnp.shape(leaf), bool), self.copied_over(index))
            for index, leaf in enumerate(leaves)
        ]
        return to_vectors(treedef.unflatten(owners), per_leaf)[0]

    def without_duplicates(
        self, tree: Tree, collective: Callable[[list], list]
    ) -> Tree:
        """Runs a collective on each entry once, although devices hold copies.

        Each device sends its shards of split leaves, and a slice of the leaves that
        all devices hold whole. A leaf that is split over only some of the axes is sent
        once for each index of the other axes.

        Args:
          tree: this device's shards.
          collective: works entry by entry, from a list of arrays to a list of arrays
            of the same shapes.
        """
        leaves, treedef = jax.tree.flatten(tree)
        if not self.axes:
            return treedef.unflatten(collective(leaves))

        def by_slices(flat: jax.Array) -> jax.Array:
            devices = math.prod(self.axes.values())
            slices = jnp.pad(flat, (0, -flat.size % devices)).reshape(devices, -1)
            (received,) = collective([slices[lax.axis_index(self.names)]])
            return lax.all_gather(received, self.names, tiled=True)[: flat.size]

        pairs = list(zip(leaves, self.specs, strict=True))
        split = iter(collective([leaf for leaf, spec in pairs if any(spec)]))
        whole = iter(
            run_collective([leaf for leaf, spec in pairs if not any(spec)], by_slices)
        )
        return treedef.unflatten(
            next(split) if any(spec) else next(whole) for spec in self.specs
        )

    def by_slices(
        self, collective: Callable[[jax.Array], jax.Array], axes: tuple[str, ...]
    ) -> Callable[[jax.Array], jax.Array]:
        """A collective between workers, for the sum of what a worker's devices hold.

        First the devices add up their vectors, and each device gets one slice of the
        sum. It sends this slice to the same device of the other workers. Then the
        devices gather the received slices. So a worker sends the sum once, not once for
        each device.

        Args:
          collective: from a vector to what is received, behind a leading axis.
          axes: those of the devices that add up their vectors.
        """
        if not axes:
            return collective

        def sliced(flat: jax.Array) -> jax.Array:
            devices = math.prod(self.axes[axis] for axis in axes)
            padded = jnp.pad(flat, (0, -flat.size % devices))
            received = collective(lax.psum_scatter(padded, axes, tiled=True))
            whole = lax.all_gather(received, axes, axis=1, tiled=True)
            return whole[:, : flat.size]

        return sliced


def on_shards(
    function: Callable[..., tuple[Tree, ...]], tree: Tree, *whole: jax.Array
) -> tuple[Tree, ...]:
    """Runs a function on each device's shards of a tree.

    Args:
      function: `(shards, tree, *whole) -> trees`: from the `Shards` of the tree, and
        the device's own shards, to a tuple of trees with leaves of the same shapes.
      tree: what the devices of a worker hold together.
      *whole: arrays that every device of the worker holds whole.

    Returns:
      The trees, split as `tree` is. Where a worker has one device, `function` runs on
      the tree itself.

    Raises:
      ValueError: if leaves of the state disagree on how a leaf is split.
    """
    trees, _ = on_shards_and_whole(
        lambda *arguments: (function(*arguments), ()), tree, *whole
    )
    return trees


def on_shards_and_whole(
    function: Callable[..., tuple[tuple[Tree, ...], Tree]], tree: Tree, *whole: Tree
) -> tuple[tuple[Tree, ...], Tree]:
    """Runs a function as `on_shards` does, which also returns what is not split.

    Args:
      function: `(shards, tree, *whole) -> (trees, others)`. All devices of the worker
        return the same others, a tree of arrays.
      tree: what the devices of a worker hold together.
      *whole: trees of arrays that every device of the worker holds whole.

    Returns:
      The trees, split as `tree` is, and the others.
    """
    shards = shards_of(tree)
    if not shards.axes:
        return function(shards, tree, *whole)

    def zipped(tree: Tree, *whole: Tree) -> tuple[Tree, Tree]:
        trees, others = function(shards, tree, *whole)
        return jax.tree.map(lambda *leaves: leaves, *trees), others

    treedef = jax.tree.structure(tree)
    specs = treedef.unflatten(map(partition, shards.specs))
    results, others = jax.shard_map(
        zipped,
        in_specs=(specs, *(PartitionSpec() for _ in whole)),
        out_specs=(specs, PartitionSpec()),
        axis_names=set(shards.axes),
        check_vma=False,
    )(tree, *whole)
    leaves = zip(*treedef.flatten_up_to(results), strict=True)
    return tuple(map(treedef.unflatten, leaves)), others


def shards_of(tree: Tree) -> Shards:
    """How the leaves of a tree are split in the step that is traced."""
    whole, context = unsplit(tree), current.value
    if context is None or not whole.shapes:
        return whole
    return Shards(dict(context.axes), whole.shapes, context.specs(tree))


def unsplit(tree: Tree) -> Shards:
    """The leaves of a tree on a worker with one device."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
    return Shards({}, shapes, [((),) * len(shape) for shape in shapes])


def _global_indices(
    shape: tuple[int, ...], spec: Spec, axes: dict[str, int], start: int
) -> jax.Array:
    """The indices of a shard's entries in the whole leaf, in the shape of the shard."""
    indices = jnp.array(start, jnp.int32)
    for dimension, (size, split) in enumerate(zip(shape, spec, strict=True)):
        length = size // math.prod(axes[axis] for axis in split)
        first = lax.axis_index(split) * length if split else 0
        stride = math.prod(shape[dimension + 1 :])
        along = (first + jnp.arange(length, dtype=jnp.int32)) * stride
        indices = indices[..., None] + along.reshape((1,) * dimension + (length,))
    return indices
