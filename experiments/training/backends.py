"""Where the workers of a run live: on one device together, or on one each."""

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
      train: `(state, batch) -> (state, metrics)` of all workers; it has their layout.
      state: as it is kept.
      place: puts what all batches have in common where the workers are; each process
        gives what is its own workers'.
      nests: whether `train` can be part of a larger compiled program.
    """

    train: Train
    state: Tree
    place: Callable[[Tree], Tree]
    nests: bool


Runner: TypeAlias = Callable[[Step, Tree, Tree, int], Running]


def simulate(step: Step, state: Tree, batch: Tree, workers: int) -> Running:
    """All workers on one device, through `jax.vmap`."""
    train, state = gmc_jax.simulate(step, state, batch, workers)
    return Running(train, state, jax.device_put, nests=True)


def distribute(step: Step, state: Tree, batch: Tree, workers: int) -> Running:
    """One worker a device, through `jax.shard_map`."""
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
    """One worker a device, through `jax.pmap`."""
    devices = mesh(workers).devices.tolist()
    plan = gmc_jax.layout(step, state, batch, workers)
    axes = (plan.axes, 0)
    train = jax.pmap(
        step, axis_name="workers", in_axes=axes, out_axes=axes, devices=devices
    )
    place = jax.pmap(lambda tree: tree, devices=devices)
    return Running(plan.checked(train), plan.lay_out(state), place, nests=False)


BACKENDS: dict[str, Runner] = {
    "simulate": simulate,
    "distribute": distribute,
    "pmap": pmap,
}


def mesh(workers: int) -> jax.sharding.Mesh:
    """A device for each worker; of CPUs more can be asked for until JAX starts.

    Raises:
      ValueError: if there are fewer.
    """
    if jax.config.values["jax_num_cpu_devices"] < workers:
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", workers)
    present = jax.devices()
    check_processes(jax.process_count(), len(present), workers)
    if len(present) < workers:
        raise ValueError(
            f"`workers` is {workers}, one a device, but there are {len(present)} "
            f"devices ({present[0].device_kind}). Use `--workers {len(present)}`, or "
            "`--backend simulate`, which holds any number of workers on one device."
        )
    return jax.sharding.Mesh(present[:workers], ("workers",))


def check_processes(
    processes: int, devices: int, workers: int, backend: str = "distribute"
) -> None:
    """Refuses what several processes cannot train.

    Raises:
      ValueError: if the workers are not one a device, over all processes.
    """
    if processes == 1:
        return
    if backend != "distribute":
        raise ValueError(
            f"`backend` is {backend!r}, which keeps the workers of one process, and "
            f"there are {processes}. Leave it out, or use `--backend distribute`."
        )
    if workers != devices:
        raise ValueError(
            f"`workers` is {workers}, but {processes} processes hold {devices} "
            f"devices, each of which is a worker. Use `--workers {devices}`."
        )


def own_workers(backend: str, workers: int) -> list[int]:
    """Whose data this process holds: those of its devices, or everybody's."""
    if backend != "distribute":
        return list(range(workers))
    devices = mesh(workers).devices
    return [
        worker
        for worker, device in enumerate(devices)
        if device.process_index == jax.process_index()
    ]
