"""The command `pca`."""

from collections.abc import Sequence

from experiments.commands._options import call
from experiments.studies.pca import study


def main(options: Sequence[str]) -> None:
    """Runs it with the options of the command line."""
    study.main(call(study.PCA, "pca", options))
