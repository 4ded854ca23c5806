"""The command `launch`: starts the processes of several hosts on this machine."""

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
    """Start several processes here that run a command together, for development.

    `launch --hosts 4 --devices-per-host 2 run NAME ...`. Each is what `join` starts on
    a host of its own.
    """

    hosts: int = 2
    """How many processes."""
    devices_per_host: int = 1
    """How many workers each of them holds: CPU devices, or as many of the
    accelerators."""
    heartbeat: int = 20
    """Seconds of silence after which a process counts as dead."""

    def __post_init__(self):
        """Refuses numbers that make no group."""
        checks.positive_int(
            hosts=self.hosts,
            devices_per_host=self.devices_per_host,
            heartbeat=self.heartbeat,
        )


def main(config: Launch, command: Sequence[str]) -> None:
    """Runs a command in all processes; shows what process 0 says.

    Raises:
      SystemExit: if one fails, after its words; the others are stopped.
    """
    signals.unwind()
    preflight.check_own_name()
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
    """Of a process that ends with this one and has its own part of accelerators."""
    places = range(host * devices, (host + 1) * devices)
    return {
        PARENT: str(os.getpid()),
        "JAX_LOCAL_DEVICE_IDS": ",".join(map(str, places)),
    }
