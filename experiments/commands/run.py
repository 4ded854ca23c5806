"""The command `run`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import tyro

from experiments.commands import PROGRAM
from experiments.training import backends, comparison, named_runs
from experiments.training.config import Config


def main(options: Sequence[str]) -> None:
    """Runs it with the options of the command line."""
    joined = jax.distributed.is_initialized()
    places = (jax.process_count(), jax.device_count()) if joined else None
    comparison.main(*asked(options, places))


def asked(
    options: Sequence[str], places: tuple[int, int] | None
) -> tuple[str, Config, Path]:
    """The name, configuration and directory of results that options of `run` mean.

    Args:
      options: of the command line.
      places: how many processes train together and how many devices they hold, where
        they do.
    """
    name, *options = options or ("digits",)
    if name in ("-h", "--help"):
        name, options = "digits", [name]
    named = named_runs.find(name)
    config = named.config
    if places:
        config = dataclasses.replace(config, backend="distribute", workers=places[1])

    @dataclasses.dataclass(frozen=True)
    class Run:
        config: tyro.conf.OmitArgPrefixes[Config]
        results: Path = Path("results")
        """The directory of all results."""

    said = tyro.cli(
        Run,
        prog=f"{PROGRAM} run {name}",
        description=named.__doc__,
        default=Run(config),
        args=options,
    )
    if places:
        backends.check_processes(
            *places, workers=said.config.workers, backend=said.config.backend
        )
    return name, said.config, said.results
