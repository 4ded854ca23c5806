"""The command `elastic`: resuming with another number of workers."""

from collections.abc import Sequence

from experiments.commands._options import call
from experiments.studies.elastic import study


def main(options: Sequence[str]) -> None:
    """Runs the command with its command-line options."""
    study.main(call(study.Elastic, "elastic", options))
