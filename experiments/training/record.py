"""Results on disk: a numbered directory a run, and in it JSON lines that only grow."""

import fcntl
import itertools
import json
import math
import os
import shlex
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Self

from experiments.training.log_lines import Row, parse, parse_line
from experiments.utils import signals
from experiments.utils.environment import environment
from experiments.utils.failures import naming
from experiments.utils.terminal import note

LOG = "log.jsonl"
CHECKPOINTS = "checkpoints"
"""The directory that a run removes last."""


class Record:
    """The rows of one run, in memory and in its log; holds the log's lock while open.

    A row of kind `header` comes first (command, configuration, versions, commit,
    device). A row of kind `evaluation` has a method, a seed, a step and what was
    measured there; a row of kind `summary` closes a method's training with one seed.
    What is not finite is `null` on disk, since JSON has no word for it, and NaN here.
    """

    def __init__(self, path: Path):
        """Opens the log in `path`, and drops what a crash left of its last line.

        Raises:
          BlockingIOError: if another process is writing it.
          ValueError: if another line than the last is broken.
        """
        self.path = path
        self._file = (path / LOG).open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise
        try:
            self.rows, self._ends = parse(path / LOG)
        except ValueError:
            self._file.close()
            raise
        if os.path.getsize(path / LOG) > self._length:
            self._file.truncate(self._length)

    def __enter__(self) -> Self:
        """Closes the log at the end of the block."""
        signals.recording(self.path)
        return self

    def __exit__(self, *error: object) -> None:
        """Closes the log, which frees it for others."""
        with naming(self.path / LOG):
            self._file.close()

    def append(self, **row: Any) -> None:
        """Adds a row, on disk before this returns."""
        line = json.dumps(_finite(row), allow_nan=False) + "\n"
        with naming(self.path / LOG):
            self._file.write(line)
            self._file.flush()
        self.rows.append(row)
        self._ends.append(self._length + len(line.encode()))

    def rewind(self, method: str, seeds: Collection[int], step: int) -> None:
        """Takes back the rows of `method` with these seeds beyond `step`."""
        taken = [
            row.get("method") == method and row["seed"] in seeds and row["step"] > step
            for row in self.rows
        ]
        if any(taken):
            first = taken.index(True)
            later = zip(self.rows[first:], taken[first:], strict=True)
            del self.rows[first:], self._ends[first:]
            self._file.truncate(self._length)
            for row, gone in later:
                if not gone:
                    self.append(**row)

    @property
    def trained(self) -> set[tuple[str, int]]:
        """The methods and seeds that have their summary."""
        return _trained(self.rows)

    @property
    def finished(self) -> bool:
        """Whether every method of the configuration has a summary for every seed."""
        return _finished(self.rows)

    @property
    def _length(self) -> int:
        return self._ends[-1] if self._ends else 0


def read(path: Path) -> list[Row]:
    """The rows in the directory of a run, without what a crash left of its last line.

    Raises:
      FileNotFoundError: if there is no run in the directory.
      ValueError: if another line than the last is broken. Asking a row for a column
        that it lacks raises this too.
    """
    if not (path / LOG).is_file():
        raise FileNotFoundError(_no_run(path))
    rows, _ = parse(path / LOG)
    for row in rows:
        if row["kind"] in ("evaluation", "summary"):
            row |= {name: math.nan for name, value in row.items() if value is None}
    return rows


def header(path: Path) -> Row:
    """The first row in the directory of a run; an empty one if it cannot be read."""
    log = path / LOG
    try:
        with log.open("rb") as file:
            line = file.readline()
        return parse_line(line, log) if line else {}
    except (OSError, ValueError) as error:
        note(f"Left out, as its first line cannot be read: {log} ({error}).")
        return {}


def ends(path: Path) -> list[int]:
    """Where each line of a log ends, in bytes."""
    return parse(path / LOG)[1]


def begin(results: Path, name: str, config: Row, **facts: Any) -> Record:
    """Opens the record of a run: an unfinished one like it, else a new one.

    Args:
      results: the directory of all runs.
      name: what the run is called; its directory is `name-001` or a later number.
      config: what must be the same for a run to be taken up again.
      **facts: what else belongs in the header.

    Returns:
      The open record, with a header as its first row.
    """
    config = plain(config)
    for path in (log.parent for log in sorted(results.glob(f"{name}-[0-9]*/{LOG}"))):
        if header(path).get("config") != config:
            continue
        left = (path / CHECKPOINTS).exists()
        if not left and _finished(read(path)):
            continue
        try:
            record = Record(path)
        except BlockingIOError:
            continue
        if left or not record.finished:
            if (now := environment()) != record.rows[0]["environment"]:
                record.append(kind="resumed", environment=now)
            return record
        record.__exit__()
    return create(results, name, config, **facts)


def create(results: Path, name: str, config: Row, **facts: Any) -> Record:
    """Opens the record of a new run, with a header as its first row; as `begin`."""
    program, *options = sys.orig_argv
    header = {
        "kind": "header",
        "name": name,
        "command": shlex.join([Path(program).name, *options]),
        "config": plain(config),
        "environment": environment(),
        **facts,
    }
    record = Record(_new_directory(results, name))
    record.append(**header)
    return record


def prepare(results: Path) -> None:
    """Makes the directory of all results, before any work is done for it.

    Raises:
      ValueError: if it cannot be made, or nothing can be written there.
    """
    try:
        results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"cannot be made ({error.strerror})"
    else:
        if os.access(results, os.W_OK | os.X_OK):
            return
        problem = "cannot be written to"
    raise ValueError(
        f"`results` is {str(results)!r}, a directory that {problem}. Name another one: "
        "`--results DIRECTORY`."
    )


def plain(row: Row) -> Row:
    """A row as it comes back from the disk: tuples as lists, paths as strings."""
    return json.loads(json.dumps(row, default=str))


def latest(results: Path) -> Path:
    """The directory of the run that was written last.

    Raises:
      FileNotFoundError: if there is none.
    """
    logs = sorted(_logs(results), key=lambda log: log.stat().st_mtime, reverse=True)
    for log in logs:
        if header(log.parent):
            return log.parent
    raise FileNotFoundError(
        f"there are no results in {results}. `python -m experiments` makes some, and "
        "`--results` looks elsewhere."
    )


def _finite(value: Any) -> Any:
    """With None for what is not finite, wherever in a row."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _logs(results: Path) -> list[Path]:
    """All logs of a directory of results: of runs, and a level below of studies."""
    return [*results.glob(f"*/{LOG}"), *results.glob(f"*/*/{LOG}")]


def _no_run(path: Path) -> str:
    words = f"there is no run in {path}, which would have a file {LOG}."
    found = sorted(str(log.parent) for log in _logs(path))[:3]
    if found:
        return f"{words} Name one of those below it, such as {', '.join(found)}."
    return f"{words} Name the directory of a run, such as results/digits-001."


def _trained(rows: Sequence[Row]) -> set[tuple[str, int]]:
    return {(row["method"], row["seed"]) for row in rows if row["kind"] == "summary"}


def _finished(rows: Sequence[Row]) -> bool:
    config = rows[0]["config"]
    seeds = range(config["seed"], config["seed"] + config["seeds"])
    return _trained(rows).issuperset(itertools.product(config["methods"], seeds))


def _new_directory(results: Path, name: str) -> Path:
    number = 1
    while True:
        path = results / f"{name}-{number:03}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return path
