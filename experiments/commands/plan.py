"""The command `plan`."""

from collections.abc import Sequence

from experiments.commands._options import call
from experiments.studies.plan import study


def main(options: Sequence[str]) -> None:
    """Runs it with the options of the command line."""
    study.main(call(study.Plan, "plan", options))
