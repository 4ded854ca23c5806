"""Runs a command in several processes on this machine, as if on several hosts."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.hosts import preflight
from experiments.hosts.join import arguments
from experiments.hosts.member import PARENT
from experiments.hosts.processes import Command, ProcessFailed, started
from experiments.utils import signals
from gmc_jax.utils import checks


@dataclass(frozen=True)
class Launch:
    """Run a command in several processes on this machine, for development.

    `launch --hosts 4 --devices-per-host 2 run NAME ...`. Each process is like one that
    `join` runs on a host of its own.
    """

    hosts: int = 2
    """The number of processes."""
    devices_per_host: int = 1
    """Workers in each process, each on its own CPU device or accelerator."""
    heartbeat: int = 20
    """Seconds without a heartbeat after which a process counts as lost."""

    def __post_init__(self):
        """Refuses numbers that are not positive."""
        checks.positive_int(
            hosts=self.hosts,
            devices_per_host=self.devices_per_host,
            heartbeat=self.heartbeat,
        )


def main(config: Launch, command: Sequence[str]) -> None:
    """Runs a command in all processes; only process 0 prints.

    Raises:
      SystemExit: if a process fails, after its error; the others are stopped.
    """
    signals.unwind()
    preflight.check_hostname()
    coordinator = f"localhost:{preflight.free_port()}"
    commands = [
        Command(
            arguments(
                command,
                coordinator=coordinator,
                hosts=config.hosts,
                host=host,
                devices_per_host=config.devices_per_host,
                heartbeat=config.heartbeat,
            ),
            environment(host, config.devices_per_host),
        )
        for host in range(config.hosts)
    ]
    try:
        with started(commands) as group:
            group.wait()
    except ProcessFailed as error:
        signals.say("\n".join(filter(None, [str(error), signals.kept()])))
        raise SystemExit(error.status) from None


def environment(host: int, devices: int) -> dict[str, str]:
    """Environment variables of a child: its parent, and its accelerators.

    Args:
      host: the index of the process.
      devices: how many accelerators each process uses.
    """
    indices = range(host * devices, (host + 1) * devices)
    return {
        PARENT: str(os.getpid()),
        "JAX_LOCAL_DEVICE_IDS": ",".join(map(str, indices)),
    }
