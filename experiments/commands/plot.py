"""The command `plot`: of a run, loss and accuracy against epochs and bytes."""

from collections.abc import Sequence
from pathlib import Path

import tyro

from experiments.commands import _studies
from experiments.commands._options import call
from experiments.training import record
from experiments.training.study import save, say


def main(options: Sequence[str]) -> None:
    """Runs it with the options of the command line."""
    call(show, "plot", options)


def show(
    path: tyro.conf.Positional[Path | None] = None,
    results: Path = Path("results"),
    output: Path | None = None,
) -> None:
    """Draws what a run or a study recorded.

    Args:
      path: the directory of the run or the study; the latest in `results` by default.
      results: the directory of all results.
      output: the file to write, or of several figures what their names begin with;
        `figure.png` and the like beside the record by default.
    """
    path = path or record.latest(results)
    study, rows = _studies.read(path)
    figures = study.figures(rows)
    if not figures:
        raise ValueError(f"what is in {path} has no figure; `table` prints it.")
    for name, figure in figures.items():
        file = output or path / f"{name}.png"
        if output and len(figures) > 1:
            file = output.with_stem(f"{output.stem}-{name}")
        say(f"drew {save(figure, file)}")
