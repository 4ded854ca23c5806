"""The command `list`: the named runs and the first line of their docstrings."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from experiments.commands._options import call
from experiments.training import named_runs


def main(options: Sequence[str]) -> None:
    """Runs the command with its command-line options."""
    call(show, "list", options)


def show() -> None:
    """Prints all named runs."""
    shown = Table("name", "description", box=None)
    for name in named_runs.names():
        shown.add_row(name, (named_runs.find(name).__doc__ or "").partition("\n")[0])
    Console().print(shown)
