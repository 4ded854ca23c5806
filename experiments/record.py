"""Results on disk: a numbered directory a run, and in it JSON lines that only grow."""

import fcntl
import itertools
import json
import math
import os
import shlex
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any, Self, TypeAlias

from experiments import signals
from experiments.environment import environment

Row: TypeAlias = dict[str, Any]

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
        """
        self.path = path
        self._file = (path / LOG).open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise
        self.rows = read(path)
        self._ends = ends(path)
        if os.path.getsize(path / LOG) > self._length:
            self._file.truncate(self._length)

    def __enter__(self) -> Self:
        """Closes the log at the end of the block."""
        signals.recording(self.path)
        return self

    def __exit__(self, *error: object) -> None:
        """Closes the log, which frees it for others."""
        self._file.close()

    def append(self, **row: Any) -> None:
        """Adds a row, on disk before this returns."""
        line = json.dumps(_finite(row), allow_nan=False) + "\n"
        self.rows.append(row)
        self._ends.append(self._length + len(line.encode()))
        self._file.write(line)
        self._file.flush()

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
        return {
            (row["method"], row["seed"])
            for row in self.rows
            if row["kind"] == "summary"
        }

    @property
    def finished(self) -> bool:
        """Whether every method of the configuration has a summary for every seed."""
        config = self.rows[0]["config"]
        seeds = range(config["seed"], config["seed"] + config["seeds"])
        return self.trained.issuperset(itertools.product(config["methods"], seeds))

    @property
    def _length(self) -> int:
        return self._ends[-1] if self._ends else 0


def read(path: Path) -> list[Row]:
    """The rows in the directory of a run; a line without an end is not one yet.

    Raises:
      FileNotFoundError: if there is no run in the directory.
    """
    if not (path / LOG).is_file():
        raise FileNotFoundError(
            f"there is no run in {path}, which would have a file {LOG}. Name the "
            "directory of a run, such as results/digits-001."
        )
    with (path / LOG).open() as file:
        rows = [json.loads(line) for line in file if line.endswith("\n")]
    for row in rows:
        if row["kind"] in ("evaluation", "summary"):
            row |= {name: math.nan for name, value in row.items() if value is None}
    return rows


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
    for path in sorted(results.glob(f"{name}-[0-9]*/{LOG}")):
        if not any(row.get("config") == config for row in read(path.parent)[:1]):
            continue
        try:
            record = Record(path.parent)
        except BlockingIOError:
            continue
        if not record.finished or (path.parent / CHECKPOINTS).exists():
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
    logs = sorted(results.glob(f"*/{LOG}"), key=lambda log: log.stat().st_mtime)
    logs = [log for log in logs if read(log.parent)]
    if not logs:
        raise FileNotFoundError(
            f"there are no results in {results}. `python -m experiments` makes some, "
            "and `--results` looks elsewhere."
        )
    return logs[-1].parent


def _finite(row: Row) -> Row:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }


def ends(path: Path) -> list[int]:
    """Where each line of a log ends, in bytes."""
    lines = (path / LOG).read_bytes().splitlines(keepends=True)
    whole = (len(line) for line in lines if line.endswith(b"\n"))
    return list(itertools.accumulate(whole))


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
