"""One worker's step, run by many: simulated on one device, or one worker a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gmc_jax import checks, shardings
from gmc_jax.channels.axis import workers_on
from gmc_jax.core import Tree
from gmc_jax.layouts import Layout, Train, layout
from gmc_jax.programs import axes_of, equations
from gmc_jax.steps import Step
from gmc_jax.trees import accumulator_dtype, is_key, mean_over_workers

Metrics: TypeAlias = Literal["each", "mean"]
"""Whose metrics come back: each worker's, on a leading axis, or their mean."""


def simulate(
    step: Step,
    state: Tree,
    batch: Tree,
    workers: int,
    *,
    axis_name: str = "workers",
    replicated: Callable[[Tree], Tree] | None = None,
    metrics: Metrics = "each",
) -> tuple[Train, Tree]:
    """Runs the step of one worker for many simulated workers on one device.

    The step is batched by `jax.vmap` over a named axis, so its channels really average
    over the workers. Leaves of the state that differ between workers (see `layout`) are
    kept with a leading axis of workers, the others once.

    Args:
      step: the step of one worker, `(state, batch) -> (state, metrics)`.
      state: one worker's state; it is copied.
      batch: an example of the batches of all workers: every leaf has a leading axis of
        workers. Only shapes and dtypes are read.
      workers: their number.
      axis_name: the named axis that the channels average over.
      replicated: selects what must be the same on all workers, such as the parameters:
        `lambda state: state[0]`.
      metrics: "each" worker's, with a leading axis of workers, or their "mean", as
        floats.

    Returns:
      `(train, state)`: a compiled function `(state, batch) -> (state, metrics)`, which
      donates the state, and the state as it is kept. `train.layout` is its layout, for
      `evaluate`, `resize` and `Checkpoints`.

    Raises:
      ValueError: if the batch has no leading axis of workers, the step does not return
        a state of the types it was given and metrics, or what `replicated` selects
        differs between workers. From `train`, before it runs, if a state is not one of
        as many workers, of this step, as it is kept.

    Example:
      >>> import gmc_jax, jax, jax.numpy as jnp, optax
      >>> tx = gmc_jax.gmc(0.1, gmc_jax.all_gather(gmc_jax.top_k(0.5)))
      >>> def step(state, batch):
      ...     params, opt_state = state
      ...     loss, grads = jax.value_and_grad(lambda w: jnp.sum((w - batch) ** 2))(
      ...         gmc_jax.query(opt_state, params)
      ...     )
      ...     updates, opt_state = tx.update(grads, opt_state, params)
      ...     return (optax.apply_updates(params, updates), opt_state), loss
      >>> params, batch = jnp.zeros(4), jnp.ones((8, 4))
      >>> train, state = gmc_jax.simulate(step, (params, tx.init(params)), batch, 8)
      >>> state, losses = train(state, batch)
      >>> losses.shape
      (8,)
    """
    summary = _summary(metrics)
    plan = _plan(step, state, batch, workers, axis_name, replicated)
    batched = jax.vmap(
        step,
        in_axes=(plan.axes, 0),
        out_axes=(plan.axes, 0),
        axis_name=axis_name,
        axis_size=workers,
    )

    def run(state: Tree, batch: Tree) -> tuple[Tree, Tree]:
        state, metrics = batched(state, batch)
        return state, summary(metrics)

    return Train(_jit(run, plan), plan), plan.lay_out(state)


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
    summary = _summary(metrics)
    mesh = _auto(mesh, axis_name)
    workers = mesh.shape[axis_name]
    plan = _plan(step, state, batch, workers, axis_name, replicated)
    own = PartitionSpec(axis_name)
    inside = shardings.read(state, mesh, axis_name)

    def on_device(state: Tree, batch: Tree) -> tuple[Tree, Tree]:
        state = jax.tree.map(
            lambda leaf, differs: leaf[0] if differs else leaf, state, plan.differs
        )
        with shardings.inside(inside if inside.axes else None):
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
        shardings.place(leaf, spec, mesh, *([axis_name] if differs else []))
        for leaf, (_, _, spec), differs in zip(
            leaves, inside.leaves, jax.tree.leaves(plan.differs), strict=True
        )
    ]
    # Said only where there is a choice: what is split inside a worker stays so.
    kept = treedef.unflatten([leaf.sharding for leaf in placed])
    everywhere = NamedSharding(mesh, PartitionSpec())
    run = _jit(
        over_mesh,
        plan,
        (kept if inside.axes else None, everywhere if metrics == "mean" else None),
    )
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    train = Paced(run, plan) if on_cpu else Train(run, plan)
    return train, treedef.unflatten(placed)


def worker_key(key: jax.Array, *, axis_name: str = "workers") -> jax.Array:
    """A worker's own random key, from one that is the same on all workers.

    Call it inside the step. A key in the replicated state gives all workers the same
    draws, say the same dropout, unless it is made their own.

    Args:
      key: a typed key, or a raw one.
      axis_name: the named axis whose indices are the workers.

    Returns:
      The key with the worker's index folded in.

    Raises:
      NameError: where no such axis is in scope.
    """
    checks.axis(axis_name=axis_name)
    workers_on(axis_name, "worker_key")
    return jax.random.fold_in(key, jax.lax.axis_index(axis_name))


def unrolled(fn: Callable[..., Tree]) -> Callable[..., Tree]:
    """Makes `simulate` run a function once a worker, one after another, in the program.

    By itself `jax.vmap` batches it, which suits accelerators and dense layers. The
    gradients of convolutions, however, become grouped convolutions, which are slow on
    CPUs: there `gmc_jax.unrolled(jax.value_and_grad(loss_fn))` is faster (see
    `python -m experiments bench simulate`). On one worker a device it changes nothing.

    Args:
      fn: a function of arrays alone, without collectives. Everything that differs
        between workers must be an argument, and `worker_key` be called outside of it.

    Returns:
      A function of the same positional arguments and results, which cannot be
      differentiated: take the gradient inside, `unrolled(jax.value_and_grad(loss_fn))`.

    Raises:
      ValueError: from that function if `fn` uses a named axis, under every runner.
    """
    checks.function(fn=fn)
    traced_once = jax.jit(fn)

    @jax.custom_batching.custom_vmap
    def call(*args: Tree) -> Tree:
        return traced_once(*args)

    @call.def_vmap
    def _(workers: int, batched: list[Tree], *args: Tree) -> tuple[Tree, Tree]:
        def own(worker: int) -> list[Tree]:
            return jax.tree.map(
                lambda leaf, differs: leaf[worker] if differs else leaf,
                list(args),
                batched,
            )

        results = [traced_once(*own(worker)) for worker in range(workers)]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)
        return stacked, jax.tree.map(lambda _: True, stacked)

    def checked(*args: Tree) -> Tree:
        for equation in equations(traced_once.trace(*args).jaxpr):
            axes = [axis for axis in axes_of(equation) if isinstance(axis, str)]
            if axes:
                raise ValueError(
                    "`unrolled` runs a function for one worker after another, so that "
                    "it must not use their axis, but it calls "
                    f"`{equation.primitive.name}` over {axes[0]!r}. Call collectives, "
                    "channels and `worker_key` outside of it, and pass in what they "
                    "give."
                )
        return call(*args)

    return checked


class Paced(Train):
    """One that waits for the state it is given before it starts.

    XLA's CPU client lets a device have 32 computations in flight and makes the thread
    that launches the next one wait. With collectives in them that is a deadlock: the
    ones in flight may wait for devices that this thread was yet to launch.
    """

    def __call__(self, state: Tree, batch: Tree) -> tuple[Tree, Tree]:
        """Runs a step once the last one is done."""
        return super().__call__(jax.block_until_ready(state), batch)


def _plan(
    step: Step,
    state: Tree,
    batch: Tree,
    workers: int,
    axis_name: str,
    replicated: Callable[[Tree], Tree] | None,
) -> Layout:
    if replicated is not None:
        checks.function(replicated=replicated)
    plan = layout(step, state, batch, workers, axis_name=axis_name)
    if replicated is not None:
        plan.check_replicated(replicated)
    return plan


def _summary(metrics: Metrics) -> Callable[[Tree], Tree]:
    """What becomes of the metrics of all workers."""
    if metrics not in get_args(Metrics):
        raise ValueError(
            f"`metrics` says whose come back, one of {get_args(Metrics)}, but is "
            f"{metrics!r}."
        )

    def mean(path: tuple, leaf: jax.Array) -> jax.Array:
        if is_key(leaf):
            raise TypeError(
                "`metrics` is 'mean', but of random keys, such as "
                f"`metrics{jax.tree_util.keystr(path)}`, there is none. Leave them out "
                "of what the step returns, or pass `metrics='each'`."
            )
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return mean_over_workers(leaf, jnp.promote_types(leaf.dtype, jnp.float32))
        return mean_over_workers(leaf, accumulator_dtype(leaf.dtype))

    if metrics == "each":
        return lambda tree: tree
    return lambda tree: jax.tree_util.tree_map_with_path(mean, tree)


def _jit(
    train: Callable[[Tree, Tree], tuple[Tree, Tree]],
    plan: Layout,
    shardings_out: tuple[Tree, Tree] | None = None,
) -> jax.stages.Wrapped:
    def checked(state: Tree, batch: Tree) -> tuple[Tree, Tree]:
        plan.check(state, batch)
        return train(state, batch)

    return jax.jit(checked, donate_argnums=0, out_shardings=shardings_out)


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
