"""Runs workers on the devices of a mesh."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gmc_jax.channels.sharded import context
from gmc_jax.core import Tree
from gmc_jax.execution._running import Metrics, checked_layout, compiled, summary_of
from gmc_jax.execution.layout import Train
from gmc_jax.execution.step import Step
from gmc_jax.utils import checks


def distribute(
    step: Step,
    state: Tree,
    batch: Tree,
    *,
    mesh: Mesh | None = None,
    axis_name: str = "workers",
    replicated: Callable[[Tree], Tree] | None = None,
    metrics: Metrics = "each",
) -> tuple[Train, Tree]:
    """Runs the step of one worker on each device of a mesh, in one or many processes.

    The step is the same as under `simulate`, and so are the numbers, to rounding.
    Leaves that differ between workers are sharded over the axis: each device holds only
    those of its own worker. The other leaves are ordinary replicated arrays.

    On a mesh with further axes, a worker has several devices. Place the parameters over
    those axes by `jax.device_put(params, NamedSharding(mesh, PartitionSpec(None,
    "model")))`, and call `tx.init` on them, outside of `jax.jit`. Every leaf then keeps
    its sharding: XLA partitions the step, channels compress shard by shard, and no
    device holds a whole leaf, residual or mean. Channels read the shardings from the
    state, so step, method and channel are written as for an unsharded model. A leaf
    that was placed on one device is replicated over the devices of a worker. JAX splits
    a dimension into shards of equal size only.

    A step can be compiled for devices that are not here. Pass shapes for the state,
    `jax.ShapeDtypeStruct`, or a mesh of the devices of a topology that JAX's compilers
    describe (`jax.experimental.topologies.get_topology_desc`). The state that is
    returned then has shapes with shardings on the mesh. `train.lower(state,
    batch).compile()` is the program, whose `memory_analysis` and `as_text` tell what it
    needs, and `wire_bytes` and `message_bits` count what it sends. Leaves are split by
    the `sharding` of their shapes. A shape without one, as `jax.eval_shape(tx.init,
    params)` gives, is split like the leaf of that shape whose path ends alike.

    Args:
      step: the step of one worker, `(state, batch) -> (state, metrics)`.
      state: one worker's state, the same in all processes; it is copied. It may hold
        `jax.ShapeDtypeStruct`s in the place of arrays.
      batch: an example of the batches of all workers: every leaf has a leading axis of
        workers. Only shapes and dtypes are read. In training, the placement of a batch
        says how the devices of a worker share it: with `PartitionSpec("workers",
        "fsdp")` each device has examples of its own; otherwise each has all examples of
        its worker.
      mesh: has one worker for each index of its axis `axis_name`. If None, the mesh
        consists of all devices, each of them a worker. Over several processes, call
        `jax.distributed.initialize` first, and make the mesh of `jax.devices()`.
      axis_name: the named axis that the channels average over.
      replicated: selects the leaves that must be the same on all workers, such as the
        parameters: `lambda state: state[0]`.
      metrics: "each" for each worker's metrics, with a leading axis of workers that is
        sharded over the mesh; "mean" for their mean, as floats that are replicated on
        every device. So any process can read the mean alone, as by
        `float(metrics["loss"])`. It costs one more all-reduce a step.

    Returns:
      `(train, state)` as `simulate` returns them, placed on the mesh. Of shapes, and on
      a mesh whose devices can compile only, the state is the shapes of the arrays that
      would be placed; `train` can be lowered for them, but not run. Over several
      processes, `gmc_jax.fetch` reads each worker's metrics; all processes must call it
      together.

    Raises:
      ValueError: as `simulate`. Also if the mesh has no axis `axis_name`, if the batch
        does not have one entry for each worker, or if a leaf of the state is sharded
        over the workers or over axes that the mesh does not have. A channel raises it
        if leaves are sharded and its compressor needs whole vectors, or if a tree that
        mirrors the parameters is sharded in another way than they are.

    Guarantees:
      A leaf of the state keeps its sharding over the axes inside a worker.
    """
    summary = summary_of(metrics)
    mesh = _auto(mesh, axis_name)
    workers = mesh.shape[axis_name]
    layout = checked_layout(step, state, batch, workers, axis_name, replicated)
    own = PartitionSpec(axis_name)
    inside = context.read(state, mesh, axis_name)

    def on_device(state: Tree, batch: Tree) -> tuple[Tree, Tree]:
        state = jax.tree.map(
            lambda leaf, differs: leaf[0] if differs else leaf, state, layout.differs
        )
        with context.use(inside):
            state, metrics = step(state, jax.tree.map(lambda leaf: leaf[0], batch))
        state = jax.tree.map(
            lambda leaf, differs: leaf[None] if differs else leaf,
            state,
            layout.differs,
        )
        return state, jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], metrics)

    # With `check_vma`, shard_map would sum the gradients of replicated parameters over
    # the workers by itself, uncompressed. Here the layout proves what is replicated.
    sharded = jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(layout.specs, own),
        out_specs=(layout.specs, own),
        axis_names={axis_name},
        check_vma=False,
    )

    def over_mesh(state: Tree, batch: Tree) -> tuple[Tree, Tree]:
        # The user may have set another mesh, an explicit one, by `jax.set_mesh`.
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            state, metrics = sharded(state, batch)
            return state, summary(metrics)

    leaves, treedef = jax.tree.flatten(state)
    placed = [
        context.place(leaf, spec, mesh, *([axis_name] if differs else []))
        for leaf, (_, _, spec), differs in zip(
            leaves, inside.leaves, jax.tree.leaves(layout.differs), strict=True
        )
    ]
    # Without this, XLA may choose other shardings for leaves sharded inside a worker.
    shardings = treedef.unflatten([leaf.sharding for leaf in placed])
    everywhere = NamedSharding(mesh, PartitionSpec())
    run = compiled(
        over_mesh,
        layout,
        (shardings if inside.axes else None, everywhere if metrics == "mean" else None),
    )
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    kind = BlockingStep if on_cpu else Train
    if context.is_absent(mesh):
        kind = CompilingStep
    return kind(run, layout), treedef.unflatten(placed)


class BlockingStep(Train):
    """The step of all workers, which waits for the last one before it starts.

    XLA's CPU client allows a device 32 computations in flight, and blocks the thread
    that launches the next one. With collectives that is a deadlock: computations in
    flight may wait for devices that this thread has not launched yet.

    All results of a step are done at once, so it waits for one of them. What the caller
    computes between two steps and the second one needs is done with the second one.
    """

    _last: jax.Array | None = None

    def __call__(self, state: Tree, batch: Tree) -> tuple[Tree, Tree]:
        """Runs a step when the last one is done."""
        if self._last is None or self._last.is_deleted():
            jax.block_until_ready(state)
        else:
            self._last.block_until_ready()
        state, metrics = super().__call__(state, batch)
        # The state is donated to the next step; metrics are not.
        result, *_ = *jax.tree.leaves(metrics), *jax.tree.leaves(state), None
        self._last = None if isinstance(result, Tracer) else result
        return state, metrics


class CompilingStep(Train):
    """The step of all workers for devices that are not here; it only compiles."""

    def __call__(self, state: Tree, batch: Tree) -> tuple[Tree, Tree]:
        """Raises TypeError."""
        raise TypeError(
            "`train` must run on devices that are here, and those of `mesh` can "
            "compile only. `train.lower(state, batch).compile()` gives the program. To "
            "run it, pass arrays and a mesh of `jax.devices()` to `distribute`."
        )


def _auto(mesh: Mesh | None, axis_name: str) -> Mesh:
    """Returns the mesh with automatic axes; those of `jax.make_mesh` are explicit."""
    checks.axis(axis_name=axis_name)
    if mesh is None:
        return Mesh(np.asarray(jax.devices()), (axis_name,))
    if not isinstance(mesh, Mesh):
        raise TypeError(
            f"`mesh` must be a `jax.sharding.Mesh`, got {checks.shown(mesh)}."
        )
    if axis_name not in mesh.axis_names:
        raise ValueError(
            f"`mesh` must have an axis {axis_name!r} whose indices are the workers, "
            f"got the axes {mesh.axis_names}. Make it with "
            f"`jax.sharding.Mesh(jax.devices(), ({axis_name!r},))`, or pass the name "
            "of your axis as `axis_name` here and to the channel."
        )
    return Mesh(mesh.devices, mesh.axis_names)
