"""The command `plot`: draws the figures of a run or a study from its log."""

from collections.abc import Sequence
from pathlib import Path

import tyro

from experiments.commands import _studies
from experiments.commands._options import call
from experiments.training import record
from experiments.training.study import save, say


def main(options: Sequence[str]) -> None:
    """Runs the command with its command-line options."""
    call(show, "plot", options)


def show(
    path: tyro.conf.Positional[Path | None] = None,
    results: Path = Path("results"),
    output: Path | None = None,
) -> None:
    """Draws the figures of a run or a study from its log.

    Args:
      path: the directory of the run or the study; by default the latest in `results`.
      results: the directory of all results.
      output: the file to write; if there are several figures, their names are added to
        its own. By default `figure.png`, or a file for each figure, beside the log.
    """
    path = path or record.latest(results)
    study, rows = _studies.read(path)
    figures = study.figures(rows)
    if not figures:
        raise ValueError(f"the results in {path} have no figure; use `table {path}`.")
    for name, figure in figures.items():
        file = output or path / f"{name}.png"
        if output and len(figures) > 1:
            file = output.with_stem(f"{output.stem}-{name}")
        say(f"drew {save(figure, file)}")
