"""What a command that did not end leaves behind, in words."""

import contextlib
from pathlib import Path

from experiments.training import record
from gmc_jax.checkpoints import manifest


def words(path: Path) -> str:
    """What the directory of a record holds, as it is found; nothing if nothing.

    Args:
      path: of a run, which goes on from its checkpoints, or of a study, which does not.
    """
    rows: list[record.Row] = []
    with contextlib.suppress(OSError, ValueError):
        rows = record.read(path)
    checkpoints = path / record.CHECKPOINTS
    reached = []
    if checkpoints.is_dir():
        for folder in sorted(checkpoints.iterdir()):
            reached += [
                f"{folder.name} at step {s}"
                for s in manifest.complete_steps(folder)[:1]
            ]
    if reached:
        return f"kept in {path}: {', '.join(reached)}. The same command goes on there."
    if checkpoints.is_dir() or len(rows) < 2:
        return ""
    return f"kept in {path}: the rows of {record.LOG}."
