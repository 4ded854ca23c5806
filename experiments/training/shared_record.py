"""One record for all processes of a run; only the first process writes it."""

import io
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils

from experiments.training import record
from experiments.training.record import Record, Row
from gmc_jax.utils.multihost import on_first_process


class Follower(Record):
    """The record in the other processes; rows that are appended stay in memory."""

    def __init__(self, path: Path):
        """Reads the rows that the first process has written so far.

        Raises:
          FileNotFoundError: if this process cannot see the record.
        """
        if not (path / record.LOG).is_file():
            raise FileNotFoundError(
                f"process {jax.process_index()} cannot see {path}, the directory of "
                "the run on process 0. Name a directory that all hosts share: "
                "`--results DIRECTORY`."
            )
        self.path = path
        self.rows = record.read(path)
        self._ends = record.ends(path)
        self._file = io.StringIO()


def begin(results: Path, name: str, config: Row, **facts: Any) -> Record:
    """Opens the record of a run in every process; see `record.begin`."""
    written: list[Record] = []

    def first() -> str:
        written.append(record.begin(results, name, config, **facts))
        return written[0].path.name

    path = results / on_first_process(first)
    log = written[0] if written else Follower(path)
    # No process may append before all processes have read.
    multihost_utils.sync_global_devices("record")
    return log
