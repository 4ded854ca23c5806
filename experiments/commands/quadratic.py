"""The command `quadratic`."""

from collections.abc import Sequence

from experiments.commands._options import call
from experiments.studies.quadratic import study


def main(options: Sequence[str]) -> None:
    """Runs it with the options of the command line."""
    study.main(call(study.Quadratic, "quadratic", options))
