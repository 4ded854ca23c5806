"""How a command's log is recognised, printed and drawn."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.training import record
from experiments.training.record import Row


def _no_figures(rows: Sequence[Row]) -> Mapping[str, Figure]:
    del rows
    return {}


class Study(NamedTuple):
    """How a command's log is recognised, printed and drawn.

    Tables and figures are made from rows on disk. If the study was interrupted, only
    the first rows are there.

    Attributes:
      kind: of a row; only this study writes rows of this kind with `column`.
      column: a column of this row.
      tables: maps rows to the tables and lines of text that are printed; a `Text` is
        printed as it is, without wrapping its lines.
      figures: maps rows to figures, by the names of their files without the suffix.
    """

    kind: str
    column: str
    tables: Callable[[Sequence[Row]], Iterable[Table | Text | str]]
    figures: Callable[[Sequence[Row]], Mapping[str, Figure]] = _no_figures

    def owns(self, rows: Sequence[Row]) -> bool:
        """Whether this study wrote the rows."""
        return any(row["kind"] == self.kind and self.column in row for row in rows)

    def show(self, path: Path) -> None:
        """Draws and prints the record in a directory."""
        rows = record.read(path)
        drawn = [
            save(figure, path / f"{name}.png")
            for name, figure in self.figures(rows).items()
        ]
        self.print(rows)
        say(f"{'Figures' if len(drawn) > 1 else 'Figure'} and log: {path}")

    def print(self, rows: Sequence[Row]) -> None:
        """Prints all tables."""
        for shown in self.tables(rows):
            if isinstance(shown, str):
                Console().print(shown, markup=False, highlight=False)
            elif isinstance(shown, Text):
                say(shown.plain)
            else:
                Console().print(shown)


def say(words: str) -> None:
    """Prints a line without wrapping it, since it holds a path."""
    Console().print(words, markup=False, highlight=False, soft_wrap=True)


def save(figure: Figure, file: Path) -> Path:
    """Writes a figure in the format of the file's suffix, completely or not at all.

    Raises:
      OSError: if the file cannot be written; an older file stays.
      ValueError: if the suffix names no format.
    """
    formats = figure.canvas.get_supported_filetypes()
    ending = file.suffix[1:].lower()
    if ending not in formats:
        raise ValueError(
            f"`output` must end in one of {', '.join(formats)}, got {str(file)!r}. "
            "Name a file such as figure.png."
        )
    half = file.with_name(f".{file.name}.part")
    try:
        try:
            figure.savefig(half, format=ending)
            half.replace(file)
        finally:
            half.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from None
    return file
