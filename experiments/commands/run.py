"""The command `run`: trains and compares methods."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import tyro

from experiments.commands import PROGRAM
from experiments.training import backends, comparison, named_runs
from experiments.training.config import Config


def main(options: Sequence[str]) -> None:
    """Runs the command with its command-line options."""
    joined = jax.distributed.is_initialized()
    cluster = (jax.process_count(), jax.device_count()) if joined else None
    comparison.main(*parse(options, cluster))


def parse(
    options: Sequence[str], cluster: tuple[int, int] | None
) -> tuple[str, Config, Path]:
    """Parses the options of `run`.

    Args:
      options: of the command line.
      cluster: how many processes train together, and how many devices they hold in
        all; None for a process on its own, or where the devices are not known yet.

    Returns:
      The name of the run, its configuration, and the directory of all results.

    Raises:
      ValueError: if no run has this name, or the processes cannot train this
        configuration.
    """
    name, *options = options or ("digits",)
    if name in ("-h", "--help"):
        name, options = "digits", [name]
    named = named_runs.find(name)
    config = named.config
    if cluster:
        config = dataclasses.replace(config, backend="distribute", workers=cluster[1])

    @dataclasses.dataclass(frozen=True)
    class Run:
        config: tyro.conf.OmitArgPrefixes[Config]
        results: Path = Path("results")
        """The directory of all results."""

    parsed = tyro.cli(
        Run,
        prog=f"{PROGRAM} run {name}",
        description=named.__doc__,
        default=Run(config),
        args=options,
    )
    if cluster:
        backends.check_processes(
            *cluster,
            workers=parsed.config.workers,
            backend=parsed.config.backend,
            devices_each=parsed.config.devices_each,
        )
    return name, parsed.config, parsed.results
