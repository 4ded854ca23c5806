"""Where the workers of a run live: on one device together, or on one each."""

import contextlib
from collections.abc import Callable
from typing import TypeAlias

import jax

import gmc_jax
from gmc_jax.core import Tree
from gmc_jax.execution import Train
from gmc_jax.layouts import Step

Runner: TypeAlias = Callable[[Step, Tree, Tree, int], tuple[Train, Tree]]


def distribute(
    step: Step, state: Tree, batch: Tree, workers: int
) -> tuple[Train, Tree]:
    """One worker a device, through `jax.shard_map`."""
    return gmc_jax.distribute(step, state, batch, mesh=mesh(workers))


def pmap(step: Step, state: Tree, batch: Tree, workers: int) -> tuple[Train, Tree]:
    """One worker a device, through `jax.pmap`."""
    plan = gmc_jax.layout(step, state, batch, workers)
    axes = (plan.axes, 0)
    train = jax.pmap(
        step,
        axis_name="workers",
        in_axes=axes,
        out_axes=axes,
        devices=mesh(workers).devices.tolist(),
    )
    return train, plan.lay_out(state)


BACKENDS: dict[str, Runner] = {
    "simulate": gmc_jax.simulate,
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
