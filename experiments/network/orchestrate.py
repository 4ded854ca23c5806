"""Starts the processes of the laboratory, at one rate of the links after another."""

import contextlib
import dataclasses
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from experiments.hosts import join, launch, preflight
from experiments.hosts.processes import Command, ProcessFailed, python, started
from experiments.network import measurements, namespaces
from experiments.network.counters import LOOPBACK
from experiments.network.lineup import LINEUP, OURS
from experiments.network.options import Network
from experiments.training.record import Row
from experiments.utils import signals
from experiments.utils.units import bytes_per_second

_PORT = 4711  # Of the coordinator; no other process is in its namespace.
# By default glibc returns large arrays to the kernel at every step. The kernel zeroes
# them again, which took half of a step of ten million parameters.
_KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_ARENA_MAX": "1",
}


def orchestrate(config: Network, console: Console) -> Iterator[Row]:
    """Measures at every rate, in network namespaces if this machine allows them.

    Args:
      config: of the laboratory.
      console: for progress and remarks.

    Yields:
      A row for each rate and method.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            hosts = stack.enter_context(namespaces.hosts(config.hosts))
        except OSError as reason:
            console.print(
                f"The links are not shaped: {reason}. All hosts use the loopback, and "
                "each host counts an equal part of its bytes."
            )
            hosts = None
            config = dataclasses.replace(config, rates=(LOOPBACK,), interface=LOOPBACK)
        columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
        progress = stack.enter_context(Progress(*columns, console=console))
        for rate in config.rates:
            if hosts:
                hosts.shape(bytes_per_second(rate))
            for methods in _groups(config.methods, console):
                bar = progress.add_task(f"{rate}: {', '.join(methods)}", total=1)
                part = dataclasses.replace(config, rates=(rate,), methods=methods)
                yield from _run(part, folder / f"{rate}-{methods[0]}.json", hosts)
                progress.update(bar, completed=1)


def _groups(methods: Sequence[str], console: Console) -> Iterator[tuple[str, ...]]:
    """Groups methods that train in the same processes: ours, and each of PyTorch's."""
    ours = tuple(name for name in methods if name in OURS)
    if ours:
        yield ours
    others = [name for name in methods if name not in OURS]
    if others and not importlib.util.find_spec("torch"):
        console.print(
            f"Left out, since PyTorch is missing: {', '.join(others)}. Install it with "
            '`pip install -e ".[bench]"`.'
        )
        return
    for name in others:
        yield (name,)


def _run(config: Network, report: Path, hosts: namespaces.Hosts | None) -> list[Row]:
    """Runs a group of methods, and returns the rows that process 0 reports."""
    config = dataclasses.replace(config, report=report)
    coordinator = f"localhost:{preflight.free_port()}"
    if hosts:
        coordinator = f"{hosts.address(0)}:{_PORT}"
    command_of = _ours if config.methods[0] in OURS else _of_pytorch
    commands = []
    for host in range(config.hosts):
        arguments, variables = command_of(config, coordinator, host)
        environment = launch.environment(host, devices=1) | _KEEP_MEMORY | variables
        inside = hosts.inside(host) if hosts else []
        pinned = _processors(host, config.hosts)
        commands.append(Command([*inside, *pinned, *arguments], environment))
    try:
        with started(commands) as group:
            group.wait()
    except ProcessFailed as error:
        words = filter(None, [str(error), signals.kept()])
        raise SystemExit("\n".join(words)) from None
    reported = json.loads(report.read_text())
    if command_of is _ours:
        return reported
    together = measurements.of_all(reported, config.interface == LOOPBACK)
    return [{"method": config.methods[0], "rate": config.rates[0], **together}]


def _processors(host: int, hosts: int) -> list[str]:
    """Pins a host to its own processors; hosts share them if there are too few."""
    if not shutil.which("taskset"):
        return []
    here = sorted(os.sched_getaffinity(0))
    each = max(1, len(here) // hosts)
    own = [here[(host * each + place) % len(here)] for place in range(each)]
    return ["taskset", "--cpu-list", ",".join(map(str, own))]


def _ours(
    config: Network, coordinator: str, host: int
) -> tuple[list[str], dict[str, str]]:
    """The command line and environment of one host, for our methods."""
    arguments = join.arguments(
        ["network", *_flags(dataclasses.asdict(config))],
        coordinator=coordinator,
        hosts=config.hosts,
        host=host,
    )
    return arguments, {}


def _of_pytorch(
    config: Network, coordinator: str, host: int
) -> tuple[list[str], dict[str, str]]:
    """The command line and environment of one host, for a method of PyTorch."""
    (method,) = config.methods
    fields = {
        "coordinator": coordinator,
        "hosts": config.hosts,
        "host": host,
        "method": method,
        "model": config.model,
        "batch_size": config.batch_size,
        "learning_rate": LINEUP[method].learning_rate,
        "seconds": config.seconds,
        "report": config.report,
        "interface": config.interface,
    }
    interface = config.interface or namespaces.INTERFACE
    return (
        python("-m", "experiments.network.ddp", *_flags(fields)),
        {"GLOO_SOCKET_IFNAME": interface},
    )


def _flags(fields: dict[str, Any]) -> list[str]:
    """The command-line options with these values."""
    options = []
    for name, value in fields.items():
        if value is not None:
            values = value if isinstance(value, tuple) else (value,)
            options += [f"--{name.replace('_', '-')}", *map(str, values)]
    return options
