"""The command `bench`: the time of compressors and of simulation."""

from collections.abc import Sequence

import tyro

from experiments.bench import compress, simulate
from experiments.commands import PROGRAM


def main(options: Sequence[str]) -> None:
    """Runs the command with its command-line options."""
    benches = {"compress": compress.Compress, "simulate": simulate.Simulate}
    config = tyro.extras.subcommand_cli_from_dict(
        benches, prog=f"{PROGRAM} bench", args=options
    )
    if isinstance(config, compress.Compress):
        compress.main(config)
    else:
        simulate.main(config)
