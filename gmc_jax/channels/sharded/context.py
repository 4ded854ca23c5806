"""How the arrays of a worker are split over its devices.

`distribute` reads it off the state and makes it the current context while it traces a
step. Channels ask the context how a tree is split.
"""

from contextlib import AbstractContextManager
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


class ShardingContext(NamedTuple):
    """How a state is split over the axes of the mesh that are inside a worker.

    Attributes:
      axes: their names and sizes, in the order of the mesh.
      leaves: for every leaf of the state its path, its shape and its spec.
    """

    axes: tuple[tuple[str, int], ...]
    leaves: tuple[tuple[Path, tuple[int, ...], Spec], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The axes inside a worker."""
        return tuple(name for name, _ in self.axes)

    def specs(self, tree: Tree) -> list[Spec]:
        """The specs of the leaves of a tree, such as gradients.

        An array inside a compiled step does not know how it is split. So each leaf gets
        the spec of a leaf of the state: the one of the same shape whose path has the
        longest end in common with its own. Where several tie, a split one wins: if
        parameters are whole and momenta are split, means are split. Where none has the
        shape, the leaf is whole.

        Raises:
          ValueError: if several tie that are split differently.
        """
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return [self._spec(keys_of(path), jnp.shape(leaf)) for path, leaf in leaves]

    def _spec(self, path: Path, shape: tuple[int, ...], least: int = 0) -> Spec:
        candidates = [
            (_common_end(path, at), at, spec)
            for at, size, spec in self.leaves
            if size == shape
        ]
        longest = max((common for common, _, _ in candidates), default=0)
        longest = max(longest, least)
        split = {
            spec: at
            for common, at, spec in candidates
            if common == longest and any(spec)
        }
        if len(split) > 1:
            ways = " and ".join(
                f"`state{''.join(at)}` by {partition(spec)}"
                for spec, at in split.items()
            )
            raise ValueError(
                "`state` must split what mirrors the parameters as the parameters are "
                f"split, got several ways for the leaf `{''.join(path) or 'tree'}` of "
                f"shape {shape}: {ways}. Place the parameters first, and call "
                "`tx.init` on them afterwards."
            )
        return next(iter(split), ((),) * len(shape))


current = jax.make_user_context(None)
"""The `ShardingContext` of the step being traced; None if a worker has one device.

It is a context of JAX, so that a trace that was cached under one is not used under
another.
"""


def use(sharding: ShardingContext) -> AbstractContextManager[None]:
    """Makes a context the current one for what is traced in a block."""
    return current(sharding if sharding.axes else None)


def keys_of(path: tuple) -> Path:
    """The keys of a path of `jax.tree_util`, each as a string."""
    return tuple(jax.tree_util.keystr((key,)) for key in path)


def partition(spec: Spec, *leading: str) -> PartitionSpec:
    """The `PartitionSpec` of a spec, after the axes of leading dimensions."""
    entries = [*leading, *(axes or None for axes in spec)]
    while entries and entries[-1] is None:  # Specs that XLA chooses have none there.
        entries.pop()
    return PartitionSpec(*entries)


def read(state: Tree, mesh: Mesh, axis_name: str) -> ShardingContext:
    """Reads how a state is split inside the workers of a mesh.

    Args:
      state: one worker's state, arrays or `jax.ShapeDtypeStruct`. A leaf with a
        `NamedSharding` on the mesh is split as it says. A `ShapeDtypeStruct` without a
        sharding is split as the leaf that it mirrors: the one of its shape whose path
        has the longest end in common with its own. Every other leaf is whole on all
        devices of a worker.
      mesh: the mesh; the indices of one of its axes are the workers.
      axis_name: that axis.

    Raises:
      ValueError: if a leaf is split over the workers, or not by axes of the mesh; if
        one without a sharding mirrors leaves that are split differently.
    """
    axes = tuple(
        (name, size)
        for name, size in mesh.shape.items()
        if name != axis_name and size > 1
    )
    sizes = dict(axes)

    def spec_of(path: Path, leaf: jax.Array) -> Spec:
        whole = ((),) * jnp.ndim(leaf)
        is_array = isinstance(leaf, (jax.Array, jax.ShapeDtypeStruct))
        sharding = leaf.sharding if is_array else None
        if sharding is None or sharding.is_fully_replicated:
            return whole
        name = f"`state{''.join(path)}`"
        if not isinstance(sharding, NamedSharding) or not _same(sharding.mesh, mesh):
            if not axes:
                return whole
            raise ValueError(
                f"{name} must be split by axes of `mesh`, {dict(mesh.shape)}, got "
                f"{sharding}. Place it with `jax.device_put(leaf, NamedSharding(mesh, "
                "PartitionSpec(...)))`; if it is a shape, pass the sharding to "
                "`jax.ShapeDtypeStruct`."
            )
        split = [
            axes if isinstance(axes, tuple) else () if axes is None else (axes,)
            for axes in sharding.spec
        ]
        if any(axis_name in axes for axes in split):
            raise ValueError(
                f"{name} must not be split over the axis {axis_name!r}: `state` is "
                "that of one worker, and `distribute` copies it to all workers. Split "
                f"it over other axes of `mesh`, {dict(mesh.shape)}, or none."
            )
        known = tuple(tuple(axis for axis in axes if axis in sizes) for axes in split)
        return known + whole[len(known) :]

    found, mirrors = [], []
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        keys = keys_of(path)
        found.append((keys, jnp.shape(leaf), spec_of(keys, leaf)))
        is_shape = isinstance(leaf, jax.ShapeDtypeStruct)
        mirrors.append(is_shape and leaf.sharding is None)
    told = [leaf for leaf, mirror in zip(found, mirrors, strict=True) if not mirror]
    others = ShardingContext(axes, tuple(told))
    leaves = [
        (keys, shape, others._spec(keys, shape, least=1) if mirror else spec)
        for (keys, shape, spec), mirror in zip(found, mirrors, strict=True)
    ]
    return ShardingContext(axes, tuple(leaves))


def is_absent(mesh: Mesh) -> bool:
    """Whether the devices of a mesh can compile only: `jax` holds none of them."""
    return not mesh.devices.flat[0].client.local_devices()


def place(
    leaf: jax.Array | jax.ShapeDtypeStruct, spec: Spec, mesh: Mesh, *leading: str
) -> jax.Array | jax.ShapeDtypeStruct:
    """Copies a leaf to the devices of a mesh; each device gets its own shard alone.

    Args:
      leaf: that of one worker, whole or split as `spec` says.
      spec: how it is split on the mesh.
      mesh: the mesh.
      *leading: the axis of the workers, if the leaf is repeated for each of them.

    Returns:
      The array. Of a shape, or where the devices can compile only, the shape with the
      sharding that the array would have.
    """
    lead = tuple(mesh.shape[axis] for axis in leading)
    sharding = NamedSharding(mesh, partition(spec, *leading))
    if isinstance(leaf, jax.ShapeDtypeStruct) or is_absent(mesh):
        shape = (*lead, *jnp.shape(leaf))
        return jax.ShapeDtypeStruct(shape, jnp.result_type(leaf), sharding=sharding)
    return _copied(jnp.asarray(leaf), spec, sharding, lead)


def _copied(
    leaf: jax.Array, spec: Spec, sharding: NamedSharding, lead: tuple[int, ...]
) -> jax.Array:
    """The array of a sharding, whose leading dimensions repeat a leaf."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = _copied(jax.random.key_data(leaf), (*spec, ()), sharding, lead)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))

    def bounds(index: tuple[slice, ...]) -> tuple[tuple[int, int, int], ...]:
        sizes = zip(index, leaf.shape, strict=True)
        return tuple(part.indices(size) for part, size in sizes)

    if any(spec):  # Only the shards on this host can be read.
        held = {bounds(shard.index): shard.data for shard in leaf.addressable_shards}
        read = {index: np.array(data) for index, data in held.items()}
    else:
        read = {bounds((slice(None),) * leaf.ndim): np.array(leaf)}

    def part(index):
        own = read[bounds(index[len(lead) :])]
        return own[None] if lead else own

    return jax.make_array_from_callback((*lead, *leaf.shape), sharding, part)


def _same(mesh: Mesh | AbstractMesh, other: Mesh) -> bool:
    """Whether two meshes differ at most in the types of their axes."""
    if isinstance(mesh, AbstractMesh):
        return dict(mesh.shape) == dict(other.shape)
    return isinstance(mesh, Mesh) and other == Mesh(
        mesh.devices, mesh.axis_names, axis_types=other.axis_types
    )


def _common_end(path: Path, other: Path) -> int:
    """How many keys two paths have in common at their ends."""
    common = 0
    for one, two in zip(reversed(path), reversed(other), strict=False):
        if one != two:
            break
        common += 1
    return common
