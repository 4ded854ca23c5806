"""The command `bench`: what compression, simulation and compiling cost."""

from collections.abc import Sequence

import tyro

from experiments.bench import compile_time, compiled, compress, device, simulate, wire
from experiments.commands import PROGRAM


def main(options: Sequence[str]) -> None:
    """Runs the command with its command-line options."""
    benches = {
        "compress": compress.Compress,
        "simulate": simulate.Simulate,
        "compile": compile_time.Compile,
        "compiled": compiled.Compiled,
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
    elif isinstance(config, compile_time.Compile):
        compile_time.main(config)
    elif isinstance(config, compiled.Compiled):
        compiled.main(config)
    elif isinstance(config, wire.Wire):
        wire.main(config)
    else:
        device.main(config)
