"""The command `network`: training over links of given rates."""

from collections.abc import Sequence

from experiments.commands._options import call
from experiments.network import laboratory
from experiments.network.options import Network


def main(options: Sequence[str]) -> None:
    """Runs the command with its command-line options."""
    laboratory.main(call(Network, "network", options))
