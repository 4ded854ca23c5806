"""The command `bench`: the time of compressors and of simulation."""

from collections.abc import Sequence

import tyro

from experiments.bench.compress import Compress, main_compress
from experiments.bench.simulate import Simulate, main_simulate
from experiments.commands import PROGRAM


def main(options: Sequence[str]) -> None:
    """Runs the command with its command-line options."""
    benches = {"compress": Compress, "simulate": Simulate}
    config = tyro.extras.subcommand_cli_from_dict(
        benches, prog=f"{PROGRAM} bench", args=options
    )
    if isinstance(config, Compress):
        main_compress(config)
    else:
        main_simulate(config)
