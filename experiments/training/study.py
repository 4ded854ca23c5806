"""What a command leaves behind: which logs are its own, and how they are shown."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from experiments.training import record
from experiments.training.record import Row


def _none(rows: Sequence[Row]) -> Mapping[str, Figure]:
    del rows
    return {}


class Study(NamedTuple):
    """How a command's record is told from others, printed and drawn.

    Tables and figures are made of rows as they are on disk, and of the first ones
    alone where the study was interrupted.

    Attributes:
      kind: of a row that no other study writes...
      column: ...with this column.
      tables: maps rows to what is printed, tables and lines of text.
      figures: maps rows to figures, by their files' names without the ending.
    """

    kind: str
    column: str
    tables: Callable[[Sequence[Row]], Iterable[Table | str]]
    figures: Callable[[Sequence[Row]], Mapping[str, Figure]] = _none

    def owns(self, rows: Sequence[Row]) -> bool:
        """Whether this study wrote them."""
        return any(row["kind"] == self.kind and self.column in row for row in rows)

    def show(self, path: Path) -> None:
        """Draws and prints what was recorded in a directory."""
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
            else:
                Console().print(shown)


def say(words: str) -> None:
    """Prints a line that is not broken, since it holds a path."""
    Console().print(words, markup=False, highlight=False, soft_wrap=True)


def save(figure: Figure, file: Path) -> Path:
    """Writes a figure in the format of the file's ending; all of it or nothing.

    Raises:
      OSError: if it cannot be written; what was there stays.
      ValueError: if there is no such format.
    """
    formats = figure.canvas.get_supported_filetypes()
    ending = file.suffix[1:].lower()
    if ending not in formats:
        raise ValueError(
            f"`output` is {str(file)!r}, whose ending is none of {', '.join(formats)}. "
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
