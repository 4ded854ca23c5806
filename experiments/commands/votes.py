"""The command `votes`: majority votes with faulty workers."""

from collections.abc import Sequence

from experiments.commands._options import call
from experiments.studies.votes import study


def main(options: Sequence[str]) -> None:
    """Runs the command with its command-line options."""
    study.main(call(study.Votes, "votes", options))
