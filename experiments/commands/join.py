"""The command `join`."""

from collections.abc import Sequence

from experiments.commands import _dispatch, run
from experiments.commands._options import call, split
from experiments.hosts import join
from experiments.hosts.options import Join


def main(options: Sequence[str]) -> None:
    """Runs it with the options of the command line."""
    own, command = split(options, "join")
    config = call(Join, "join", own)
    if command[0] == "run":
        run.asked(command[1:], None)  # Before it waits for the others.
    join.main(config, command, _dispatch.main)
