"""The command `join`: runs a command as one of several processes."""

from collections.abc import Sequence

from experiments.commands import _dispatch, run
from experiments.commands._options import call, split
from experiments.hosts import join
from experiments.hosts.options import Join


def main(options: Sequence[str]) -> None:
    """Runs the command with its command-line options."""
    own, command = split(options, "join")
    config = call(Join, "join", own)
    if command[0] == "run":
        run.parse(command[1:], None)  # Refuses bad options before it waits.
    join.main(config, command, _dispatch.main)
