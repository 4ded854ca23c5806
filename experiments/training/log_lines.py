"""Parses the lines of a log into rows, and reports a broken line."""

import json
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from experiments.utils.terminal import note

Row: TypeAlias = dict[str, Any]


class _Columns(dict[str, Any]):
    """A JSON object of a log; a missing key raises an error that names the log."""

    log: Path

    def __missing__(self, column: str) -> NoReturn:
        raise ValueError(
            f"a row of {self.log} has no {column!r}: another version of this project "
            "wrote it, or another program. Use the version that its first line names."
        )


def parse(log: Path) -> tuple[list[Row], list[int]]:
    """Parses all rows; a last line that a crash has cut short is left out.

    Returns:
      The rows, and the offset in bytes at which each ends.

    Raises:
      ValueError: if a line other than the last is broken.
    """
    rows, ends, end = [], [], 0
    lines = log.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        try:
            rows.append(parse_line(line, log))
        except ValueError as error:
            if number < len(lines):
                raise ValueError(
                    f"line {number} of {log} is broken ({error}). Repair the line, or "
                    "move the directory away."
                ) from None
            note(f"The last line of {log} was cut short and is left out.")
        else:
            ends.append(end := end + len(line))
    return rows, ends


def parse_line(line: bytes, log: Path) -> Row:
    """Parses one line; reading a column that the row lacks raises a `ValueError`.

    Raises:
      ValueError: if the line is not a complete row.
    """

    def columns(found: Row) -> _Columns:
        row = _Columns(found)
        row.log = log
        return row

    row = json.loads(line, object_hook=columns)
    if not isinstance(row, dict) or "kind" not in row or not line.endswith(b"\n"):
        raise ValueError("not a complete row")
    return row
