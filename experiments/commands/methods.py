"""The command `methods`: every method of the library in one table."""

from collections.abc import Sequence

from experiments.commands._options import call
from experiments.studies.every_method import study


def main(options: Sequence[str]) -> None:
    """Runs the command with its command-line options."""
    study.main(call(study.EveryMethod, "methods", options))
