"""The command `methods`."""

from collections.abc import Sequence

from experiments.commands._options import call
from experiments.studies.every_method import study


def main(options: Sequence[str]) -> None:
    """Runs it with the options of the command line."""
    study.main(call(study.EveryMethod, "methods", options))
