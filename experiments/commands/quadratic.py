"""The command `quadratic`: two workers with a quadratic each."""

from collections.abc import Sequence

from experiments.commands._options import call
from experiments.studies.quadratic import study


def main(options: Sequence[str]) -> None:
    """Runs the command with its command-line options."""
    study.main(call(study.Quadratic, "quadratic", options))
