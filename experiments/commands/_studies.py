"""Finds the study that wrote a record, for the commands `table` and `plot`."""

import importlib
from collections.abc import Sequence
from pathlib import Path

from experiments.training import record
from experiments.training.record import Row
from experiments.training.study import Study

NAMES = (
    "studies.every_method.study",
    "training.comparison",
    "studies.adam.study",
    "studies.choices.study",
    "studies.clocks.study",
    "studies.elastic.study",
    "studies.equal_bytes.study",
    "network.report",
    "studies.pca.study",
    "studies.plan.study",
    "studies.quadratic.study",
    "studies.theory.study",
    "studies.votes.study",
    "bench.compiled",
    "bench.device",
    "bench.timing",
    "bench.wire",
)
"""Modules with a `STUDY`; the first study that owns a record shows it."""


def read(path: Path) -> tuple[Study, Sequence[Row]]:
    """Reads the record in a directory, and finds the study that wrote it.

    Raises:
      FileNotFoundError: if the directory holds no record.
      ValueError: if no study wrote the record, or the record has no results yet.
    """
    rows = record.read(path)
    studies: list[Study] = [
        importlib.import_module(f"experiments.{name}").STUDY for name in NAMES
    ]
    for study in studies:
        if study.owns(rows):
            return study, rows
    if len(rows) < 2:
        raise ValueError(
            f"nothing was measured yet in {path}: its log holds only a header."
        )
    known = ", ".join(f"{study.kind} with {study.column}" for study in studies)
    raise ValueError(
        f"no study here wrote the log in {path}. It has rows of kind "
        f"{', '.join(dict.fromkeys(str(row['kind']) for row in rows))}; the rows of "
        f"our studies are {known}."
    )
