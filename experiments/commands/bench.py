"""The command `bench`: what compression and simulation cost, and what devices do."""

from collections.abc import Sequence

import tyro

from experiments.bench import compress, device, simulate, wire
from experiments.commands import PROGRAM


def main(options: Sequence[str]) -> None:
    """Runs the command with its command-line options."""
    benches = {
        "compress": compress.Compress,
        "simulate": simulate.Simulate,
        "wire": wire.Wire,
        "device": device.Device,
    }
    config = tyro.extras.subcommand_cli_from_dict(
        benches, prog=f"{PROGRAM} bench", args=options
    )
    if isinstance(config, compress.Compress):
        compress.main(config)
    elif isinstance(config, simulate.Simulate):
        simulate.main(config)
    elif isinstance(config, wire.Wire):
        wire.main(config)
    else:
        device.main(config)
