"""The command `table`: the tables of a run or a study, or of the GMC paper."""

from collections.abc import Sequence
from pathlib import Path

import tyro
from rich.console import Console

from experiments.commands import _studies
from experiments.commands._options import call
from experiments.paper import tables
from experiments.paper.published import TABLES
from experiments.training import record


def main(options: Sequence[str]) -> None:
    """Runs the command with its command-line options."""
    call(show, "table", options)


def show(
    which: tyro.conf.Positional[str | None] = None, results: Path = Path("results")
) -> None:
    """Prints the tables of a run or a study, or a table of the GMC paper beside ours.

    Args:
      which: the directory of the run or the study, by default the latest in `results`;
        or 1, 2, 3 or 4 for a table of the paper.
      results: the directory of all results.
    """
    if which in TABLES:
        Console().print(tables.beside_ours(which, results))
        return
    if which and which.isdigit():
        raise ValueError(
            f"the tables of the paper are {', '.join(TABLES)}, got {which}. Name one "
            "of them, or a directory."
        )
    study, rows = _studies.read(Path(which) if which else record.latest(results))
    study.print(rows)
