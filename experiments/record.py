"""Results on disk: a numbered directory a run, and in it JSON lines that only grow."""

import fcntl
import itertools
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, Self, TypeAlias

from experiments.environment import environment

Row: TypeAlias = dict[str, Any]

LOG = "log.jsonl"


class Record:
    """The rows of one run, in memory and in its log; holds the log's lock while open.

    A row of kind `header` comes first (configuration, versions, commit). A row of kind
    `evaluation` has a method, a seed, a step and what was measured there; a row of kind
    `summary` closes a method's training with one seed.
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
        self._truncate()

    def __enter__(self) -> Self:
        """Closes the log at the end of the block."""
        return self

    def __exit__(self, *error: object) -> None:
        """Closes the log, which frees it for others."""
        self._file.close()

    def append(self, **row: Any) -> None:
        """Adds a row, on disk before this returns."""
        self.rows.append(row)
        self._file.write(_line(row))
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
            del self.rows[first:]
            self._truncate()
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

    def _truncate(self):
        self._file.truncate(sum(len(_line(row)) for row in self.rows))


def read(path: Path) -> list[Row]:
    """The rows in the directory of a run; a line without an end is not one yet."""
    with (path / LOG).open() as file:
        return [json.loads(line) for line in file if line.endswith("\n")]


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
        try:
            record = Record(path.parent)
        except BlockingIOError:
            continue
        if record.rows and record.rows[0]["config"] == config and not record.finished:
            if (now := environment()) != record.rows[0]["environment"]:
                record.append(kind="resumed", environment=now)
            return record
        record.__exit__()
    return create(results, name, config, **facts)


def create(results: Path, name: str, config: Row, **facts: Any) -> Record:
    """Opens the record of a new run, with a header as its first row; as `begin`."""
    record = Record(_new_directory(results, name))
    config = plain(config)
    header = {"config": config, "environment": environment(), **facts}
    record.append(kind="header", name=name, **header)
    return record


def plain(row: Row) -> Row:
    """A row as it comes back from the disk: tuples as lists, paths as strings."""
    return json.loads(json.dumps(row, default=str))


def latest(results: Path) -> Path:
    """The directory of the run that was written last.

    Raises:
      FileNotFoundError: if there is none.
    """
    logs = sorted(results.glob(f"*/{LOG}"), key=lambda log: log.stat().st_mtime)
    if not logs:
        raise FileNotFoundError(
            f"there are no results in {results}. `python -m experiments` makes some, "
            "and `--results` looks elsewhere."
        )
    return logs[-1].parent


def _line(row: Row) -> str:
    return json.dumps(row) + "\n"


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
