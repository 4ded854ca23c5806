"""Runs a step on all workers: on one device together, or on one device each."""

import contextlib
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import numpy as np

import gmc_jax
from gmc_jax.core import Tree
from gmc_jax.execution.layout import Train
from gmc_jax.execution.step import Step


class Running(NamedTuple):
    """A step that runs on all workers.

    Attributes:
      train: maps `(state, batch)` to `(state, metrics)` of all workers; its `layout` is
        that of the state.
      state: of all workers, in this layout.
      place: puts data that all batches share onto the devices of the workers; each
        process passes the data of its own workers.
      nests: whether `train` can be part of a larger compiled program.
    """

    train: Train
    state: Tree
    place: Callable[[Tree], Tree]
    nests: bool


Runner: TypeAlias = Callable[[Step, Tree, Tree, int, int], Running]
"""Runs a step from a state and a batch: so many workers, of so many devices each."""


def simulate(
    step: Step, state: Tree, batch: Tree, workers: int, devices_each: int = 1
) -> Running:
    """Runs all workers on one device, through `jax.vmap`."""
    del devices_each
    train, state = gmc_jax.simulate(step, state, batch, workers)
    return Running(train, state, jax.device_put, nests=True)


def distribute(
    step: Step, state: Tree, batch: Tree, workers: int, devices_each: int = 1
) -> Running:
    """Runs each worker on devices of its own, through `jax.shard_map`."""
    devices = mesh(workers, devices_each)
    train, state = gmc_jax.distribute(step, state, batch, mesh=devices)
    sharding = jax.sharding.NamedSharding(
        devices, jax.sharding.PartitionSpec(devices.axis_names[0])
    )

    def place(tree: Tree) -> Tree:
        return jax.tree.map(
            lambda own: jax.make_array_from_process_local_data(sharding, own), tree
        )

    return Running(train, state, place, nests=True)


def pmap(
    step: Step, state: Tree, batch: Tree, workers: int, devices_each: int = 1
) -> Running:
    """Runs one worker on each device, through `jax.pmap`."""
    del devices_each
    devices = mesh(workers).devices.tolist()
    layout = gmc_jax.layout(step, state, batch, workers)
    axes = (layout.axes, 0)
    train = jax.pmap(
        step, axis_name="workers", in_axes=axes, out_axes=axes, devices=devices
    )
    place = jax.pmap(lambda tree: tree, devices=devices)
    return Running(layout.checked(train), layout.lay_out(state), place, nests=False)


BACKENDS: dict[str, Runner] = {
    "simulate": simulate,
    "distribute": distribute,
    "pmap": pmap,
}


def mesh(workers: int, devices_each: int = 1) -> jax.sharding.Mesh:
    """Makes a mesh of the workers' devices; JAX can add CPU devices until it starts.

    With several devices a worker, the second axis is "model".

    Raises:
      ValueError: if there are fewer devices than the workers need.
    """
    needed = workers * devices_each
    if jax.config.values["jax_num_cpu_devices"] < needed:
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", needed)
    present = jax.devices()
    check_processes(
        jax.process_count(), len(present), workers, devices_each=devices_each
    )
    most = len(present) // devices_each
    if most < workers:
        raise ValueError(
            f"`workers` must be at most {most}, since each has {devices_each} of the "
            f"{len(present)} devices ({present[0].device_kind}); got {workers}. Use "
            f"`--workers {most}`, or `--backend simulate`, which runs any number of "
            "workers on one device."
        )
    if devices_each == 1:
        return jax.sharding.Mesh(present[:workers], ("workers",))
    of_each = np.array(present[:needed]).reshape(workers, devices_each)
    return jax.sharding.Mesh(of_each, ("workers", "model"))


def split(
    params: Tree,
    devices: jax.sharding.Mesh,
    spec: Callable[[tuple[str, ...], jax.Array], jax.sharding.PartitionSpec],
) -> Tree:
    """Splits parameters over the devices of each worker.

    Args:
      params: whole arrays, the same on all processes.
      devices: a mesh with the axis "model".
      spec: maps the names on the path to a leaf, and the leaf, to how it is split.
    """

    def place(path, leaf: jax.Array) -> jax.Array:
        names = tuple(jax.tree_util.keystr((key,), simple=True) for key in path)
        sharding = jax.sharding.NamedSharding(devices, spec(names, leaf))
        return jax.device_put(leaf, sharding)

    return jax.tree_util.tree_map_with_path(place, params)


def check_processes(
    processes: int,
    devices: int,
    workers: int,
    backend: str = "distribute",
    devices_each: int = 1,
) -> None:
    """Checks that several processes can train with a backend and a number of workers.

    Raises:
      ValueError: if the backend runs in one process only, or the workers are not as
        many as the devices of all processes.
    """
    if processes == 1:
        return
    if backend != "distribute":
        raise ValueError(
            f"`backend` must be 'distribute' for {processes} processes, got "
            f"{backend!r}, which runs in one process. Leave it out, or use `--backend "
            "distribute`."
        )
    if workers * devices_each != devices:
        raise ValueError(
            f"`workers` must be {devices // devices_each}, since {processes} processes "
            f"have {devices} devices and each worker {devices_each}; got {workers}. "
            f"Use `--workers {devices // devices_each}`."
        )


def own_workers(backend: str, workers: int, devices_each: int = 1) -> list[int]:
    """The workers whose data this process holds: those on its devices, or all."""
    if backend != "distribute":
        return list(range(workers))
    devices = mesh(workers, devices_each).devices.reshape(workers, devices_each)
    return [
        worker
        for worker, device in enumerate(devices[:, 0])
        if device.process_index == jax.process_index()
    ]
