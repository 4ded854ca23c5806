"""One worker a device."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
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

    The same step and the same numbers as under `simulate`, to rounding. Leaves that
    differ between workers are sharded over the axis, so each device holds its own
    alone; the others come back as ordinary replicated arrays.

    On a mesh with other axes beside the workers', a worker is several devices. Place
    the parameters over those axes, `jax.device_put(params, NamedSharding(mesh,
    PartitionSpec(None, "model")))`, call `tx.init` on them, outside of `jax.jit`, and
    every leaf stays split as it was given: XLA splits the step, channels compress part
    by part, and no device holds a whole leaf, residual or mean. How leaves
    lie is read off the state and told to the channels inside, so that step, method and
    channel are those of a model that is whole. A leaf on one device is whole on each
    of its worker's. JAX splits a dimension only into equal parts.

    Args:
      step: the step of one worker, `(state, batch) -> (state, metrics)`.
      state: one worker's state, the same in all processes; it is copied.
      batch: an example of the batches of all workers: every leaf has a leading axis of
        workers. Only shapes and dtypes are read. Inside a worker batches lie as they
        are placed: with `PartitionSpec("workers", "fsdp")` each device has examples
        of its own, and else all have all.
      mesh: its axis `axis_name` has one worker an index; all devices if None. Over
        several processes, call `jax.distributed.initialize` first and make the mesh of
        `jax.devices()`.
      axis_name: the named axis that the channels average over.
      replicated: selects what must be the same on all workers, such as the parameters:
        `lambda state: state[0]`.
      metrics: "each" worker's, with a leading axis of workers that is spread over the
        mesh, or their "mean", as floats, whole on every device: any process reads it
        by itself, `float(metrics["loss"])`. One all-reduce more each step.

    Returns:
      `(train, state)` as `simulate` returns them, laid out over the mesh. Over several
      processes, `gmc_jax.fetch` reads metrics of each worker, in all of them together.

    Raises:
      ValueError: as `simulate`; also if the mesh has no such axis, the batch does not
        have one entry for each worker of the mesh, a leaf of the state is split over
        the workers or not by axes of the mesh; from a channel whose compressor needs a
        whole vector where leaves are split, or where what mirrors the parameters is
        split in another way than they are.

    Guarantees:
      A leaf of the state keeps its sharding over the axes inside a worker.
    """
    summary = summary_of(metrics)
    mesh = _auto(mesh, axis_name)
    workers = mesh.shape[axis_name]
    plan = checked_layout(step, state, batch, workers, axis_name, replicated)
    own = PartitionSpec(axis_name)
    inside = context.read(state, mesh, axis_name)

    def on_device(state: Tree, batch: Tree) -> tuple[Tree, Tree]:
        state = jax.tree.map(
            lambda leaf, differs: leaf[0] if differs else leaf, state, plan.differs
        )
        with context.use(inside):
            state, metrics = step(state, jax.tree.map(lambda leaf: leaf[0], batch))
        state = jax.tree.map(
            lambda leaf, differs: leaf[None] if differs else leaf, state, plan.differs
        )
        return state, jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], metrics)

    # With its check of varying axes on, shard_map would sum the gradients of replicated
    # parameters over the workers by itself, densely. The layout is the proof instead.
    sharded = jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(plan.specs, own),
        out_specs=(plan.specs, own),
        axis_names={axis_name},
        check_vma=False,
    )

    def over_mesh(state: Tree, batch: Tree) -> tuple[Tree, Tree]:
        # Under `jax.set_mesh` of an explicit mesh the context is another mesh.
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            state, metrics = sharded(state, batch)
            return state, summary(metrics)

    leaves, treedef = jax.tree.flatten(state)
    placed = [
        context.place(leaf, spec, mesh, *([axis_name] if differs else []))
        for leaf, (_, _, spec), differs in zip(
            leaves, inside.leaves, jax.tree.leaves(plan.differs), strict=True
        )
    ]
    # Said only where there is a choice: what is split inside a worker stays so.
    kept = treedef.unflatten([leaf.sharding for leaf in placed])
    everywhere = NamedSharding(mesh, PartitionSpec())
    run = compiled(
        over_mesh,
        plan,
        (kept if inside.axes else None, everywhere if metrics == "mean" else None),
    )
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    train = BlockingStep(run, plan) if on_cpu else Train(run, plan)
    return train, treedef.unflatten(placed)


class BlockingStep(Train):
    """One that waits for the state it is given before it starts.

    XLA's CPU client lets a device have 32 computations in flight and makes the thread
    that launches the next one wait. With collectives in them that is a deadlock: the
    ones in flight may wait for devices that this thread was yet to launch.
    """

    def __call__(self, state: Tree, batch: Tree) -> tuple[Tree, Tree]:
        """Runs a step once the last one is done."""
        return super().__call__(jax.block_until_ready(state), batch)


def _auto(mesh: Mesh | None, axis_name: str) -> Mesh:
    """The mesh with automatic axes, since `jax.make_mesh` makes explicit ones."""
    checks.axis(axis_name=axis_name)
    if mesh is None:
        return Mesh(np.asarray(jax.devices()), (axis_name,))
    if not isinstance(mesh, Mesh):
        raise TypeError(
            f"`mesh` must be a `jax.sharding.Mesh`, but is {checks.shown(mesh)}."
        )
    if axis_name not in mesh.axis_names:
        raise ValueError(
            f"`mesh` needs an axis {axis_name!r} with one worker an index, but has the "
            f"axes {mesh.axis_names}. Make it with "
            f"`jax.sharding.Mesh(jax.devices(), ({axis_name!r},))`, or pass the name "
            "of your axis as `axis_name` here and to the channel."
        )
    return Mesh(mesh.devices, mesh.axis_names)
