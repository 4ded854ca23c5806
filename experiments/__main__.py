"""The command line; without arguments it runs the main job, `run digits`."""

import dataclasses
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from experiments import signals, terminal

if __name__ == "__main__":
    # Before what takes long to import.
    terminal.open_streams()
    signals.end_at_once()

import tyro
from rich.console import Console
from rich.table import Table

from experiments import failures

if TYPE_CHECKING:
    from experiments.config import Config

Result = TypeVar("Result")

PROGRAM = "python -m experiments"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command, which imports what it needs and nothing else."""
    given = sys.argv[1:] if arguments is None else arguments
    command, *options = given or ("run", "digits")
    signals.forget()
    try:
        with terminal.output():
            if command in ("-h", "--help"):
                Console().print(_usage())
            elif command not in COMMANDS:
                raise SystemExit(
                    f"there is no command {command!r}; the commands are "
                    f"{', '.join(COMMANDS)}"
                )
            else:
                COMMANDS[command](options)
    except KeyboardInterrupt as end:
        number = end.number if isinstance(end, signals.Ended) else signal.SIGINT
        signals.say(signals.last_words(number))
        raise SystemExit(128 + number) from None
    except Exception as error:
        if words := failures.in_words(error):
            raise SystemExit(words) from None
        raise


def run(options: Sequence[str]) -> None:
    """Train and compare methods: `run NAME`, with options to change what NAME says."""
    import jax

    from experiments import run

    joined = jax.distributed.is_initialized()
    places = (jax.process_count(), jax.device_count()) if joined else None
    run.main(*_asked(options, places))


def _asked(
    options: Sequence[str], places: tuple[int, int] | None
) -> tuple[str, "Config", Path]:
    """The name, configuration and directory of results that options of `run` mean.

    Args:
      options: of the command line.
      places: how many processes train together and how many devices they hold, where
        they do.
    """
    from experiments import backends
    from experiments import list as runs
    from experiments.config import Config

    name, *options = options or ("digits",)
    if name in ("-h", "--help"):
        name, options = "digits", [name]
    named = runs.find(name)
    config = named.config
    if places:
        config = dataclasses.replace(config, backend="distribute", workers=places[1])

    @dataclasses.dataclass(frozen=True)
    class Run:
        config: tyro.conf.OmitArgPrefixes[Config]
        results: Path = Path("results")
        """The directory of all results."""

    asked = tyro.cli(
        Run,
        prog=f"{PROGRAM} run {name}",
        description=named.__doc__,
        default=Run(config),
        args=options,
    )
    if places:
        backends.check_processes(
            *places, workers=asked.config.workers, backend=asked.config.backend
        )
    return name, asked.config, asked.results


def list_runs(options: Sequence[str]) -> None:
    """Name the runs that `run` knows."""
    from experiments import list as runs

    _call(runs.main, "list", options)


def plot(options: Sequence[str]) -> None:
    """Draw a run again from its results; the latest one by default."""
    from experiments import plot

    _call(plot.main, "plot", options)


def table(options: Sequence[str]) -> None:
    """Print the tables of a run from its results; the latest one by default."""
    from experiments import table

    _call(table.main, "table", options)


def methods(options: Sequence[str]) -> None:
    """Train every method of the library on one problem, for one table."""
    from experiments import every_method

    every_method.main(_call(every_method.EveryMethod, "methods", options))


def quadratic(options: Sequence[str]) -> None:
    """Follow the methods on two workers' quadratics, as the GMC paper's section 3.2."""
    from experiments import quadratic

    quadratic.main(_call(quadratic.Quadratic, "quadratic", options))


def theory(options: Sequence[str]) -> None:
    """Check the lemmas and theorems of the GMC paper in numbers."""
    from experiments import theory

    theory.main(_call(theory.Theory, "theory", options))


def clocks(options: Sequence[str]) -> None:
    """Follow loss against simulated seconds, with stragglers and without."""
    from experiments import clocks

    clocks.main(_call(clocks.Clocks, "clocks", options))


def plan(options: Sequence[str]) -> None:
    """Plan what a step would take over a link: which methods and ratios pay."""
    from experiments import plan

    plan.main(_call(plan.Plan, "plan", options))


def votes(options: Sequence[str]) -> None:
    """Train with workers that lie, and count how often votes err."""
    from experiments import votes

    votes.main(_call(votes.Votes, "votes", options))


def pca(options: Sequence[str]) -> None:
    """Compare Katyusha X with SVRG where the one is to win."""
    from experiments import pca

    pca.main(_call(pca.PCA, "pca", options))


def bench(options: Sequence[str]) -> None:
    """Time compressors (`bench compress`) or simulated steps (`bench simulate`)."""
    from experiments import bench

    benches = {"compress": bench.Compress, "simulate": bench.Simulate}
    config = tyro.extras.subcommand_cli_from_dict(
        benches, prog=f"{PROGRAM} bench", args=options
    )
    if isinstance(config, bench.Compress):
        bench.main_compress(config)
    else:
        bench.main_simulate(config)


def launch(options: Sequence[str]) -> None:
    """Start several processes here that run a command together: `launch run NAME`."""
    from experiments.hosts import launch

    own, command = _split(options, "launch")
    config = _call(launch.Launch, "launch", own)
    if command[0] == "run":
        _asked(command[1:], (config.hosts, config.hosts * config.devices_per_host))
    launch.main(config, command)


def join(options: Sequence[str]) -> None:
    """Run a command as one process of several, each on a host: `join run NAME`."""
    from experiments.hosts import join
    from experiments.hosts.options import Join

    own, command = _split(options, "join")
    config = _call(Join, "join", own)
    if command[0] == "run":
        _asked(command[1:], None)  # Before it waits for the others.
    join.main(config, command, main)


def network(options: Sequence[str]) -> None:
    """Train on links of given rates, and count bytes and seconds on them."""
    from experiments.network import laboratory
    from experiments.network.options import Network

    laboratory.main(_call(Network, "network", options))


def elastic(options: Sequence[str]) -> None:
    """Stop with 8 workers, and go on with 4, 2 and 6 from the checkpoint."""
    from experiments import elastic

    elastic.main(_call(elastic.Elastic, "elastic", options))


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "run": run,
    "list": list_runs,
    "plot": plot,
    "table": table,
    "methods": methods,
    "quadratic": quadratic,
    "theory": theory,
    "clocks": clocks,
    "plan": plan,
    "votes": votes,
    "pca": pca,
    "bench": bench,
    "launch": launch,
    "join": join,
    "network": network,
    "elastic": elastic,
}

SEVERAL = ("run", "network")
"""The commands that processes can run together."""


def _split(options: Sequence[str], by: str) -> tuple[Sequence[str], Sequence[str]]:
    """The options of a command that runs another one, and that one with its own.

    Raises:
      ValueError: if the other one is of one process.
    """
    other = [place for place, word in enumerate(options) if word in COMMANDS]
    place = other[0] if other else len(options)
    command = options[place:] or ("run", "digits")
    if command[0] not in SEVERAL:
        raise ValueError(
            f"`{by}` is for what several processes do together, "
            f"{' or '.join(SEVERAL)}, and `{command[0]}` is of one. Start it without "
            f"`{by}`."
        )
    return options[:place], command


def _call(
    function: Callable[..., Result], command: str, options: Sequence[str]
) -> Result:
    return tyro.cli(function, prog=f"{PROGRAM} {command}", args=options)


def _usage() -> Table:
    usage = Table(
        title=f"{PROGRAM} COMMAND; without one, the main job",
        title_justify="left",
        caption="COMMAND --help lists the options of each.",
        caption_justify="left",
        show_header=False,
        box=None,
    )
    for name, command in COMMANDS.items():
        usage.add_row(name, command.__doc__)
    return usage


if __name__ == "__main__":
    main()
