"""The command `adam`: a transformer under Adam, and what compresses it."""

from collections.abc import Sequence

from experiments.commands._options import call
from experiments.studies.adam import study


def main(options: Sequence[str]) -> None:
    """Runs the command with its command-line options."""
    study.main(call(study.Adam, "adam", options))
