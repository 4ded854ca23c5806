"""Results on disk: a numbered directory for each run, with a log of JSON lines."""

import contextlib
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
from gmc_jax.checkpoints import manifest

LOG = "log.jsonl"
CHECKPOINTS = "checkpoints"
"""A directory of the run; the run removes it at the very end."""


class Record:
    """The rows of one run, in memory and in a log that is locked while it is open.

    The first row has the kind `header`: command, configuration, versions, commit and
    device. A row of kind `evaluation` has a method, a seed, a step and the measurements
    there. A row of kind `summary` ends the training of a method with one seed. JSON has
    no infinite numbers: they are `null` on disk, and NaN in memory.
    """

    def __init__(self, path: Path):
        """Opens the log in `path`, and removes a last line that a crash has cut short.

        Raises:
          BlockingIOError: if another process writes the log.
          ValueError: if a line other than the last is broken.
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
        """Registers the record for the last line that a signal prints."""
        signals.recording(self.path, describe)
        return self

    def __exit__(self, *error: object) -> None:
        """Closes the log and releases its lock."""
        with naming(self.path / LOG):
            self._file.close()

    def append(self, **row: Any) -> None:
        """Adds a row; it is on disk when this returns."""
        line = json.dumps(_finite(row), allow_nan=False) + "\n"
        with naming(self.path / LOG):
            self._file.write(line)
            self._file.flush()
        self.rows.append(row)
        self._ends.append(self._length + len(line.encode()))

    def rewind(self, method: str, seeds: Collection[int], step: int) -> None:
        """Removes the rows of a method with these seeds beyond a step."""
        removed = [
            row.get("method") == method and row["seed"] in seeds and row["step"] > step
            for row in self.rows
        ]
        if any(removed):
            first = removed.index(True)
            later = zip(self.rows[first:], removed[first:], strict=True)
            del self.rows[first:], self._ends[first:]
            self._file.truncate(self._length)
            for row, skipped in later:
                if not skipped:
                    self.append(**row)

    @property
    def trained(self) -> set[tuple[str, int]]:
        """The methods and seeds with a summary."""
        return _trained(self.rows)

    @property
    def finished(self) -> bool:
        """Whether every method of the configuration has a summary for each seed."""
        return _finished(self.rows)

    @property
    def _length(self) -> int:
        return self._ends[-1] if self._ends else 0


def read(path: Path) -> list[Row]:
    """Reads the rows of a run; a last line that a crash has cut short is left out.

    Reading a column that a row lacks raises a `ValueError`.

    Raises:
      FileNotFoundError: if the directory holds no run.
      ValueError: if a line other than the last is broken.
    """
    if not (path / LOG).is_file():
        raise FileNotFoundError(_no_run(path))
    rows, _ = parse(path / LOG)
    for row in rows:
        if row["kind"] in ("evaluation", "summary"):
            row |= {name: math.nan for name, value in row.items() if value is None}
    return rows


def header(path: Path) -> Row:
    """Reads the first row of a run; an empty one if that fails."""
    log = path / LOG
    try:
        with log.open("rb") as file:
            line = file.readline()
        return parse_line(line, log) if line else {}
    except (OSError, ValueError) as error:
        note(f"Left out, since its first line cannot be read: {log} ({error}).")
        return {}


def ends(path: Path) -> list[int]:
    """The offset in bytes at which each line of a log ends."""
    return parse(path / LOG)[1]


def describe(path: Path) -> str:
    """Describes what an interrupted command has left in the directory of its record.

    Args:
      path: of a run, which continues from its checkpoints, or of a study, which does
        not.

    Returns:
      A sentence or two; empty if nothing is kept.
    """
    rows: list[Row] = []
    with contextlib.suppress(OSError, ValueError):
        rows = read(path)
    checkpoints = path / CHECKPOINTS
    reached = []
    if checkpoints.is_dir():
        for folder in sorted(checkpoints.iterdir()):
            newest = manifest.complete_steps(folder)[:1]
            reached += [f"{folder.name} at step {step}" for step in newest]
    if reached:
        return f"kept in {path}: {', '.join(reached)}. The same command goes on there."
    if checkpoints.is_dir() or len(rows) < 2:
        return ""
    return f"kept in {path}: the rows of {LOG}."


def begin(results: Path, name: str, config: Row, **facts: Any) -> Record:
    """Opens the record of an unfinished run with the same configuration, or a new one.

    Args:
      results: the directory of all runs.
      name: of the run; its directory is `name-001` or a later number.
      config: of the run; only a run with an equal configuration is continued.
      **facts: further columns of the header.

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
    """Opens the record of a new run, with a header as its first row.

    Args:
      results: the directory of all runs.
      name: of the run; its directory is `name-001` or a later number.
      config: of the run.
      **facts: further columns of the header.
    """
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
    """Makes the directory of all results; commands call it before they compute.

    Raises:
      ValueError: if the directory cannot be made or written to.
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
        f"`results` is {str(results)!r}, a directory that {problem}. Name another "
        "directory: `--results DIRECTORY`."
    )


def plain(row: Row) -> Row:
    """Converts a row as a log does: tuples become lists, paths become strings."""
    return json.loads(json.dumps(row, default=str))


def latest(results: Path) -> Path:
    """The directory of the run that was written last.

    Raises:
      FileNotFoundError: if there is no run.
    """
    logs = sorted(_logs(results), key=lambda log: log.stat().st_mtime, reverse=True)
    for log in logs:
        if header(log.parent):
            return log.parent
    raise FileNotFoundError(
        f"there are no results in {results}. Run `python -m experiments` first, or "
        "name another directory with `--results`."
    )


def _finite(value: Any) -> Any:
    """Replaces numbers that are not finite by None, at any depth."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _logs(results: Path) -> list[Path]:
    """The logs in a directory of results: of runs, and one level deeper of studies."""
    return [*results.glob(f"*/{LOG}"), *results.glob(f"*/*/{LOG}")]


def _no_run(path: Path) -> str:
    problem = f"there is no run in {path}: it has no file {LOG}."
    found = sorted(str(log.parent) for log in _logs(path))[:3]
    if found:
        return f"{problem} Name a directory below it, such as {', '.join(found)}."
    return f"{problem} Name the directory of a run, such as results/digits-001."


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
