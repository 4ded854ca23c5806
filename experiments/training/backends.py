"""Runs a step on all workers: on one device together, or on one device each."""

import contextlib
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax

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


Runner: TypeAlias = Callable[[Step, Tree, Tree, int], Running]


def simulate(step: Step, state: Tree, batch: Tree, workers: int) -> Running:
    """Runs all workers on one device, through `jax.vmap`."""
    train, state = gmc_jax.simulate(step, state, batch, workers)
    return Running(train, state, jax.device_put, nests=True)


def distribute(step: Step, state: Tree, batch: Tree, workers: int) -> Running:
    """Runs one worker on each device, through `jax.shard_map`."""
    devices = mesh(workers)
    train, state = gmc_jax.distribute(step, state, batch, mesh=devices)
    sharding = jax.sharding.NamedSharding(
        devices, jax.sharding.PartitionSpec(*devices.axis_names)
    )

    def place(tree: Tree) -> Tree:
        return jax.tree.map(
            lambda own: jax.make_array_from_process_local_data(sharding, own), tree
        )

    return Running(train, state, place, nests=True)


def pmap(step: Step, state: Tree, batch: Tree, workers: int) -> Running:
    """Runs one worker on each device, through `jax.pmap`."""
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


def mesh(workers: int) -> jax.sharding.Mesh:
    """Makes a mesh of one device a worker; JAX can add CPU devices until it starts.

    Raises:
      ValueError: if there are fewer devices than workers.
    """
    if jax.config.values["jax_num_cpu_devices"] < workers:
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", workers)
    present = jax.devices()
    check_processes(jax.process_count(), len(present), workers)
    if len(present) < workers:
        raise ValueError(
            f"`workers` must be at most {len(present)}, the number of devices "
            f"({present[0].device_kind}), since each is one worker; got {workers}. Use "
            f"`--workers {len(present)}`, or `--backend simulate`, which runs any "
            "number of workers on one device."
        )
    return jax.sharding.Mesh(present[:workers], ("workers",))


def check_processes(
    processes: int, devices: int, workers: int, backend: str = "distribute"
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
    if workers != devices:
        raise ValueError(
            f"`workers` must be {devices}, the number of devices of {processes} "
            f"processes, since each is one worker; got {workers}. Use `--workers "
            f"{devices}`."
        )


def own_workers(backend: str, workers: int) -> list[int]:
    """The workers whose data this process holds: those on its devices, or all."""
    if backend != "distribute":
        return list(range(workers))
    devices = mesh(workers).devices
    return [
        worker
        for worker, device in enumerate(devices)
        if device.process_index == jax.process_index()
    ]
