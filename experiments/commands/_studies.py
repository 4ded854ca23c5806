"""The studies whose records `table` and `plot` show: a module each, with a `STUDY`."""

import importlib
from collections.abc import Sequence
from pathlib import Path

from experiments.training import record
from experiments.training.record import Row
from experiments.training.study import Study

NAMES = (
    "studies.every_method.study",
    "training.comparison",
    "studies.clocks.study",
    "studies.elastic.study",
    "network.report",
    "studies.pca.study",
    "studies.plan.study",
    "studies.quadratic.study",
    "studies.theory.study",
    "studies.votes.study",
    "bench.timing",
)
"""Of the modules; the first one that knows a record shows it."""


def read(path: Path) -> tuple[Study, Sequence[Row]]:
    """The record in a directory, and the study that wrote it.

    Raises:
      FileNotFoundError: if there is no record.
      ValueError: if none of the studies knows it, or it holds nothing yet.
    """
    rows = record.read(path)
    studies: list[Study] = [
        importlib.import_module(f"experiments.{name}").STUDY for name in NAMES
    ]
    for study in studies:
        if study.owns(rows):
            return study, rows
    if len(rows) < 2:
        raise ValueError(f"nothing was measured yet in {path}: its log is a header.")
    known = ", ".join(f"{study.kind} with {study.column}" for study in studies)
    raise ValueError(
        f"nothing here knows the log in {path}, which has rows of kind "
        f"{', '.join(dict.fromkeys(str(row['kind']) for row in rows))}. Looked for "
        f"were {known}."
    )
