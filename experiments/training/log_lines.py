"""The lines of a log as rows; what is broken is named, or dropped if it is the last."""

import json
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from experiments.utils.terminal import note

Row: TypeAlias = dict[str, Any]


class _Columns(dict[str, Any]):
    """What a log holds between two braces; a missing column is an error in words."""

    log: Path

    def __missing__(self, column: str) -> NoReturn:
        raise ValueError(
            f"a row of {self.log} has no {column!r}, so that another version of this "
            "project wrote it, or another program. Look at it with the version that "
            "its first line names."
        )


def parse(log: Path) -> tuple[list[Row], list[int]]:
    """Rows and where they end, in bytes, up to what a crash left of the last one.

    Raises:
      ValueError: if another line than the last is broken.
    """
    rows, ends, end = [], [], 0
    lines = log.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        try:
            rows.append(parse_line(line, log))
        except ValueError as error:
            if number < len(lines):
                raise ValueError(
                    f"line {number} of {log} is broken ({error}). Mend the line, or "
                    "move the directory to another place."
                ) from None
            note(f"The last line of {log} was cut short, and is left out.")
        else:
            ends.append(end := end + len(line))
    return rows, ends


def parse_line(line: bytes, log: Path) -> Row:
    """The row of one line.

    Raises:
      ValueError: if it is none, and when a column is asked for that it lacks.
    """

    def columns(found: Row) -> _Columns:
        row = _Columns(found)
        row.log = log
        return row

    row = json.loads(line, object_hook=columns)
    if not isinstance(row, dict) or "kind" not in row or not line.endswith(b"\n"):
        raise ValueError("which is no whole row")
    return row
