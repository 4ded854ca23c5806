"""The command `bench`: compressors and simulation timed, and steps compiled."""

from collections.abc import Sequence

import tyro

from experiments.bench import compiled, compress, simulate
from experiments.commands import PROGRAM


def main(options: Sequence[str]) -> None:
    """Runs the command with its command-line options."""
    benches = {
        "compress": compress.Compress,
        "simulate": simulate.Simulate,
        "compiled": compiled.Compiled,
    }
    config = tyro.extras.subcommand_cli_from_dict(
        benches, prog=f"{PROGRAM} bench", args=options
    )
    if isinstance(config, compress.Compress):
        compress.main(config)
    elif isinstance(config, simulate.Simulate):
        simulate.main(config)
    else:
        compiled.main(config)
