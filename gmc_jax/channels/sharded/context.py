"""How a worker's arrays lie on its devices: read off the state, told to channels."""

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from gmc_jax.core import Tree

Path: TypeAlias = tuple[str, ...]
"""The keys that lead to a leaf, each as it is printed."""

Spec: TypeAlias = tuple[tuple[str, ...], ...]
"""The axes of the mesh that each dimension of an array is split over."""


class Inside(NamedTuple):
    """How a state lies over the axes of the mesh that are inside a worker.

    Attributes:
      axes: their names and sizes, in the order of the mesh.
      leaves: of every leaf of the state its path, its shape and what it is split over.
    """

    axes: tuple[tuple[str, int], ...]
    leaves: tuple[tuple[Path, tuple[int, ...], Spec], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The axes inside a worker."""
        return tuple(name for name, _ in self.axes)

    def specs(self, tree: Tree) -> list[Spec]:
        """What the leaves of a tree are split over, such as gradients.

        Inside a compiled step an array does not know it. A leaf is taken to lie as the
        leaf of the state that has its shape and whose path ends like its own, in as
        many keys as any. Of several the one that is split counts: where parameters are
        whole and momenta are split, means are wanted in parts.

        Raises:
          ValueError: where several are split, and not alike.
        """
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return [self._spec(keys_of(path), jnp.shape(leaf)) for path, leaf in leaves]

    def _spec(self, path: Path, shape: tuple[int, ...]) -> Spec:
        alike = [
            (_same_end(path, at), at, spec)
            for at, size, spec in self.leaves
            if size == shape
        ]
        longest = max((same for same, _, _ in alike), default=0)
        split = {spec: at for same, at, spec in alike if same == longest and any(spec)}
        if len(split) > 1:
            ways = " and ".join(
                f"`state{''.join(at)}` by {partition(spec)}"
                for spec, at in split.items()
            )
            raise ValueError(
                "`state` is split inside a worker in several ways where the leaf "
                f"`{''.join(path) or 'tree'}` of shape {shape} is averaged: {ways}. "
                "What mirrors the parameters must be split as they are: place the "
                "parameters first, and call `tx.init` on them afterwards."
            )
        return next(iter(split), ((),) * len(shape))


inside = jax.make_user_context(None)
"""`Inside` of the step being traced, or None where a worker is one device.

A context of JAX, so that what was traced under one is not used under another.
"""


def keys_of(path: tuple) -> Path:
    """A path of `jax.tree_util` in words."""
    return tuple(jax.tree_util.keystr((key,)) for key in path)


def partition(spec: Spec, *leading: str) -> PartitionSpec:
    """As JAX has it, perhaps behind a leading dimension."""
    entries = [*leading, *(axes or None for axes in spec)]
    while entries and entries[-1] is None:  # XLA leaves them out where it chooses.
        entries.pop()
    return PartitionSpec(*entries)


def read(state: Tree, mesh: Mesh, axis_name: str) -> Inside:
    """How a state was placed inside the workers of a mesh.

    Args:
      state: one worker's state. Leaves of a `NamedSharding` on the mesh lie as it says;
        others are whole on all devices of a worker.
      mesh: the mesh, one of whose axes has the workers.
      axis_name: that axis.

    Raises:
      ValueError: if a leaf is split over the workers, or over devices in another way
        than by axes of the mesh.
    """
    axes = tuple(
        (name, size)
        for name, size in mesh.shape.items()
        if name != axis_name and size > 1
    )
    sizes = dict(axes)

    def spec_of(path: Path, leaf: jax.Array) -> Spec:
        whole = ((),) * jnp.ndim(leaf)
        if not isinstance(leaf, jax.Array) or leaf.sharding.is_fully_replicated:
            return whole
        name, sharding = f"`state{''.join(path)}`", leaf.sharding
        if not isinstance(sharding, NamedSharding) or not _same(sharding.mesh, mesh):
            if not axes:
                return whole
            raise ValueError(
                f"{name} lies on devices as {sharding} says, which is not by axes of "
                f"`mesh`, {dict(mesh.shape)}. Place it with "
                "`jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(...)))`."
            )
        split = [
            axes if isinstance(axes, tuple) else () if axes is None else (axes,)
            for axes in sharding.spec
        ]
        if any(axis_name in axes for axes in split):
            raise ValueError(
                f"{name} is split over the axis {axis_name!r}, but `state` is one "
                "worker's, the same on all of them at the start: `distribute` itself "
                "repeats what comes to differ. Split it over other axes of `mesh`, "
                f"{dict(mesh.shape)}, or none."
            )
        known = tuple(tuple(axis for axis in axes if axis in sizes) for axes in split)
        return known + whole[len(known) :]

    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        keys = keys_of(path)
        found.append((keys, jnp.shape(leaf), spec_of(keys, leaf)))
    return Inside(axes, tuple(found))


def place(leaf: jax.Array, spec: Spec, mesh: Mesh, *leading: str) -> jax.Array:
    """Copies a leaf to where it is kept, each device getting only what it holds.

    Args:
      leaf: one worker's.
      spec: what it is split over, and is to be split over.
      mesh: the mesh.
      *leading: the axis of the workers, if it is repeated for them.
    """
    leaf = jnp.asarray(leaf)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = place(jax.random.key_data(leaf), (*spec, ()), mesh, *leading)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))

    def bounds(index: tuple[slice, ...]) -> tuple[tuple[int, int, int], ...]:
        sizes = zip(index, leaf.shape, strict=True)
        return tuple(part.indices(size) for part, size in sizes)

    if any(spec):  # Of what is split, only the parts on this host can be read.
        held = {bounds(shard.index): shard.data for shard in leaf.addressable_shards}
        read = {index: np.array(data) for index, data in held.items()}
    else:
        read = {bounds((slice(None),) * leaf.ndim): np.array(leaf)}

    def part(index):
        own = read[bounds(index[len(leading) :])]
        return own[None] if leading else own

    lead = tuple(mesh.shape[axis] for axis in leading)
    sharding = NamedSharding(mesh, partition(spec, *leading))
    return jax.make_array_from_callback((*lead, *leaf.shape), sharding, part)


def _same(mesh: Mesh | AbstractMesh, other: Mesh) -> bool:
    """Whether two meshes are the same but for who splits along their axes."""
    return isinstance(mesh, Mesh) and other == Mesh(
        mesh.devices, mesh.axis_names, axis_types=other.axis_types
    )


def _same_end(path: Path, other: Path) -> int:
    """How many keys two paths have in common at their ends."""
    same = 0
    for one, two in zip(reversed(path), reversed(other), strict=False):
        if one != two:
            break
        same += 1
    return same
