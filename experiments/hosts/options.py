"""What `join` is asked for; its fields are the command-line options."""

from dataclasses import dataclass

from experiments.hosts import preflight
from gmc_jax.utils import checks


@dataclass(frozen=True)
class Join:
    """Run a command as one process of several, on one host or on many.

    `join [OPTIONS] run NAME ...`, once a host. Under Slurm, Open MPI and on TPUs the
    processes find each other; elsewhere all three of coordinator, hosts and host say
    where and which.
    """

    coordinator: str | None = None
    """Address and port that process 0 listens on, as the others reach it."""
    hosts: int | None = None
    """How many processes there are."""
    host: int | None = None
    """Which one this is, from 0."""
    devices_per_host: int = 1
    """Workers of this process where it computes on CPUs; accelerators are taken as
    they are."""
    heartbeat: int = 20
    """Seconds of silence after which a process counts as dead, and all others end."""
    patience: int = 300
    """Seconds to wait for the others at the start, as long as the address is known."""

    def __post_init__(self):
        """Refuses numbers that make no group, and half an address."""
        checks.positive_int(
            devices_per_host=self.devices_per_host,
            heartbeat=self.heartbeat,
            patience=self.patience,
        )
        given = {
            "coordinator": self.coordinator,
            "hosts": self.hosts,
            "host": self.host,
        }
        missing = [name for name, value in given.items() if value is None]
        if 0 < len(missing) < len(given):
            raise ValueError(
                f"`{missing[0]}` is missing: name all of coordinator, hosts and host, "
                "or none of them where a cluster's scheduler tells."
            )
        if self.coordinator is not None:
            preflight.address(self.coordinator)
        if self.hosts is not None and self.host is not None:
            checks.positive_int(hosts=self.hosts)
            if not 0 <= self.host < self.hosts:
                raise ValueError(
                    f"`host` must be one of 0 to {self.hosts - 1}, since there are "
                    f"{self.hosts} hosts, but is {self.host}."
                )
