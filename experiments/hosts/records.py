"""One record of a run for all its processes: the first one writes it."""

import io
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from experiments import record
from experiments.record import Record, Row


class Follower(Record):
    """The record in a process that writes none: what it appends, it keeps in memory."""

    def __init__(self, path: Path):
        """Reads what the first process has written so far.

        Raises:
          FileNotFoundError: if that is not to be seen from here.
        """
        if not (path / record.LOG).is_file():
            raise FileNotFoundError(
                f"process {jax.process_index()} does not see {path}, the run that "
                "process 0 has begun. Name a directory that all hosts share: "
                "`--results DIRECTORY`."
            )
        self.path = path
        self.rows = record.read(path)
        self._ends = record.ends(path)
        self._file = io.StringIO()


def begin(results: Path, name: str, config: Row, **facts: Any) -> Record:
    """Opens the record of a run in every process, as `experiments.record.begin`."""
    if jax.process_count() == 1:
        return record.begin(results, name, config, **facts)
    log = None
    if jax.process_index() == 0:
        log = record.begin(results, name, config, **facts)
    number = int(log.path.name.rpartition("-")[2]) if log else 0
    number = int(multihost_utils.broadcast_one_to_all(np.int32(number)))
    log = log or Follower(results / f"{name}-{number:03}")
    # Nobody appends before everybody has read.
    multihost_utils.sync_global_devices("record")
    return log
