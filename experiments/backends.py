"""Where the workers of a run live: on one device together, or on one each."""

import contextlib
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax

import gmc_jax
from gmc_jax.core import Tree
from gmc_jax.execution import Train
from gmc_jax.layouts import Step


class Running(NamedTuple):
    """A step that runs on all workers.

    Attributes:
      train: `(state, batch) -> (state, metrics)` of all workers.
      state: as it is kept.
      place: puts what all batches have in common where the workers are.
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
    return Running(
        train, state, lambda tree: jax.device_put(tree, sharding), nests=True
    )


def pmap(step: Step, state: Tree, batch: Tree, workers: int) -> Running:
    """One worker a device, through `jax.pmap`."""
    devices = mesh(workers).devices.tolist()
    plan = gmc_jax.layout(step, state, batch, workers)
    axes = (plan.axes, 0)
    train = jax.pmap(
        step, axis_name="workers", in_axes=axes, out_axes=axes, devices=devices
    )
    place = jax.pmap(lambda tree: tree, devices=devices)
    return Running(train, plan.lay_out(state), place, nests=False)


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
    if len(present) < workers:
        raise ValueError(
            f"`workers` is {workers}, one a device, but there are {len(present)} "
            f"devices ({present[0].device_kind}). Use `--workers {len(present)}`, or "
            "`--backend simulate`, which holds any number of workers on one device."
        )
    return jax.sharding.Mesh(present[:workers], ("workers",))
