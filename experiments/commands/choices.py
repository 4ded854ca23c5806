"""The command `choices`: losses beside the planner's verdicts."""

from collections.abc import Sequence

from experiments.commands._options import call
from experiments.studies.choices import study


def main(options: Sequence[str]) -> None:
    """Runs the command with its command-line options."""
    study.main(call(study.Choices, "choices", options))
