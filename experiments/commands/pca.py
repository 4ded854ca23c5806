"""The command `pca`: Katyusha X and SVRG on a leading eigenvector."""

from collections.abc import Sequence

from experiments.commands._options import call
from experiments.studies.pca import study


def main(options: Sequence[str]) -> None:
    """Runs the command with its command-line options."""
    study.main(call(study.PCA, "pca", options))
