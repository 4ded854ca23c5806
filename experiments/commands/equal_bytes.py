"""The command `equal_bytes`: losses at equal steps and at equal bytes."""

from collections.abc import Sequence

from experiments.commands._options import call
from experiments.studies.equal_bytes import study


def main(options: Sequence[str]) -> None:
    """Runs the command with its command-line options."""
    study.main(call(study.EqualBytes, "equal_bytes", options))
