"""The command `join`: runs a command as one process of several that train together."""

import ctypes
import dataclasses
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

import jax

from experiments import signals
from experiments.hosts import causes, preflight
from experiments.hosts.processes import Command, ProcessFailed, python, started
from gmc_jax import checks

PARENT = "GMC_JAX_PARENT"
"""The variable that names the process without which this one has no purpose."""


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
        checks.positive(
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
            checks.positive(hosts=self.hosts)
            if not 0 <= self.host < self.hosts:
                raise ValueError(
                    f"`host` must be one of 0 to {self.hosts - 1}, since there are "
                    f"{self.hosts} hosts, but is {self.host}."
                )


def main(
    config: Join, command: Sequence[str], run: Callable[[Sequence[str]], None]
) -> None:
    """Joins the others and runs a command, with the words of process 0 alone.

    A process that nobody watches starts itself once more and watches that one: XLA ends
    processes from C++, and somebody must have the last word.

    Args:
      config: who and where the others are.
      command: of `python -m experiments`, with its options.
      run: what runs it.
    """
    if PARENT not in os.environ:
        _watch(config, command)
        return
    signals.end_in_silence()
    _end_with_parent()
    jax.config.update("jax_num_cpu_devices", config.devices_per_host)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # Its handler in C++ swallows SIGTERM.
    jax.config.update("jax_enable_preemption_service", False)
    waiting = preflight.patient(
        f"Waits for the other processes, for {config.patience} seconds at most "
        "(`--patience`)."
    )
    try:
        with waiting:
            jax.distributed.initialize(
                config.coordinator,
                config.hosts,
                config.host,
                cluster_detection_method="deactivate" if config.coordinator else None,
                initialization_timeout=config.patience,
                heartbeat_timeout_seconds=config.heartbeat,
                shutdown_timeout_seconds=config.heartbeat,
            )
    except ValueError as error:
        if config.coordinator:
            raise
        _fail(
            "no scheduler of a cluster says where the other processes are. Name "
            f"`--coordinator ADDRESS:PORT --hosts N --host I`. ({error})"
        )
    _speak(first=jax.process_index() == 0)
    try:
        run(command)
    except SystemExit as end:
        if isinstance(end.code, str):
            _fail(end.code)
        if end.code:
            os._exit(end.code)  # Its words are said.
    except BaseException as error:
        _fail(_words(error))
    jax.distributed.shutdown()


def _watch(config: Join, command: Sequence[str]) -> None:
    """Runs this command in another process, whose end it puts in words."""
    signals.unwind()
    preflight.check_own_name()
    if config.coordinator and config.host == 0:
        preflight.check_here(config.coordinator)
    elif config.coordinator:
        waits = f"Waits for process 0 at {config.coordinator}"
        limit = f"for {config.patience} seconds at most (`--patience`)."
        with preflight.patient(f"{waits}, {limit}"):
            preflight.check_there(config.coordinator, config.patience)
    watched = Command(
        arguments(command, **dataclasses.asdict(config)), {PARENT: str(os.getpid())}
    )
    try:
        with started([watched]) as group:
            group.wait(hear=signals.write)
    except ProcessFailed as error:
        how = f"the process {error.how}." if error.code < 0 else ""
        words = [*filter(None, [how, causes.cause(error.output), signals.kept()])]
        if words:
            signals.say("\n".join(words))
        raise SystemExit(error.status) from None


def arguments(command: Sequence[str], **options: str | int | None) -> list[str]:
    """The arguments of a process that joins the others to run a command."""
    flags = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in options.items()
        if value is not None
    ]
    return python("-m", "experiments", "join", *flags, *command)


def _speak(first: bool) -> None:
    """Lets the first process print, and nobody's libraries."""
    silence = os.open(os.devnull, os.O_WRONLY)
    spoken = os.dup(sys.stdout.fileno()) if first else silence
    # Gloo prints its connections to the standard output whatever one tells it.
    os.dup2(silence, sys.stdout.fileno())
    sys.stdout = os.fdopen(spoken, "w", buffering=1)


def _fail(words: str) -> NoReturn:
    """Ends at once: others wait in collectives, and at the exit for each other."""
    print(words, file=sys.stderr, flush=True)
    os._exit(1)


def _words(error: BaseException) -> str:
    lost = r"Gloo [\w-]+ failed|heartbeat|coordination service"
    if re.search(lost, str(error)):
        return (
            f"{str(error).splitlines()[0]}\n"
            f"process {jax.process_index()} of {jax.process_count()} has lost another "
            "one, which must have failed or been killed: its own output says why."
        )
    return "".join(traceback.format_exception(error)).strip()


def _end_with_parent() -> None:
    """Whoever was started by `launch` or `network` is not to outlive it (on Linux)."""
    parent = os.environ.get(PARENT)
    if parent and sys.platform == "linux":
        deliver_when_parent_dies = 1  # PR_SET_PDEATHSIG of prctl(2).
        ctypes.CDLL(None).prctl(deliver_when_parent_dies, signal.SIGKILL)
        if os.getppid() != int(parent):
            os._exit(1)
