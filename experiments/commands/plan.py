"""The command `plan`: the predicted time of a step over a link."""

from collections.abc import Sequence

from experiments.commands._options import call
from experiments.studies.plan import study


def main(options: Sequence[str]) -> None:
    """Runs the command with its command-line options."""
    study.main(call(study.Plan, "plan", options))
