"""The command `clocks`: loss against simulated seconds."""

from collections.abc import Sequence

from experiments.commands._options import call
from experiments.studies.clocks import study


def main(options: Sequence[str]) -> None:
    """Runs the command with its command-line options."""
    study.main(call(study.Clocks, "clocks", options))
