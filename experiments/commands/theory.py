"""The command `theory`: the GMC paper's lemmas and theorems, numerically."""

from collections.abc import Sequence

from experiments.commands._options import call
from experiments.studies.theory import study


def main(options: Sequence[str]) -> None:
    """Runs the command with its command-line options."""
    study.main(call(study.Theory, "theory", options))
