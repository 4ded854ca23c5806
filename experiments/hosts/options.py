"""The options of `join`: each field is a command-line option."""

from dataclasses import dataclass

from experiments.hosts import preflight
from gmc_jax.utils import checks


@dataclass(frozen=True)
class Join:
    """Run a command as one of several processes, on one host or on several.

    `join [OPTIONS] run NAME ...`, once a host. Under Slurm, under Open MPI and on TPUs
    the processes find each other. Elsewhere, give coordinator, hosts and host.
    """

    coordinator: str | None = None
    """The address and port of process 0, as the other processes reach it."""
    hosts: int | None = None
    """The number of processes."""
    host: int | None = None
    """The index of this process, from 0."""
    devices_per_host: int = 1
    """Workers of this process on CPUs; on accelerators, each device is a worker."""
    heartbeat: int = 20
    """Seconds without a heartbeat after which a process counts as lost and all end."""
    patience: int = 300
    """Seconds to wait for the other processes at the start."""

    def __post_init__(self):
        """Refuses values that do not describe a group of processes."""
        checks.positive_int(
            devices_per_host=self.devices_per_host,
            heartbeat=self.heartbeat,
            patience=self.patience,
        )
        group = {
            "coordinator": self.coordinator,
            "hosts": self.hosts,
            "host": self.host,
        }
        missing = [name for name, value in group.items() if value is None]
        if 0 < len(missing) < len(group):
            raise ValueError(
                f"`{missing[0]}` is missing: give all of coordinator, hosts and host, "
                "or none of them under a cluster's scheduler."
            )
        if self.coordinator is not None:
            preflight.address(self.coordinator)
        if self.hosts is not None and self.host is not None:
            checks.positive_int(hosts=self.hosts)
            if not 0 <= self.host < self.hosts:
                raise ValueError(
                    f"`host` must be in 0 to {self.hosts - 1}, since there are "
                    f"{self.hosts} hosts, got {self.host}."
                )
