"""The command `launch`: runs a command in several processes on this machine."""

from collections.abc import Sequence

from experiments.commands import run
from experiments.commands._options import call, split
from experiments.hosts import launch


def main(options: Sequence[str]) -> None:
    """Runs the command with its command-line options."""
    own, command = split(options, "launch")
    config = call(launch.Launch, "launch", own)
    if command[0] == "run":
        run.parse(command[1:], (config.hosts, config.hosts * config.devices_per_host))
    launch.main(config, command)
