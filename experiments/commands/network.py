"""The command `network`."""

from collections.abc import Sequence

from experiments.commands._options import call
from experiments.network import laboratory
from experiments.network.options import Network


def main(options: Sequence[str]) -> None:
    """Runs it with the options of the command line."""
    laboratory.main(call(Network, "network", options))
