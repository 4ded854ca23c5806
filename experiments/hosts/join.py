"""Runs a command as one of several processes that train together."""

import dataclasses
import os
from collections.abc import Callable, Sequence

from experiments.hosts import causes, member, preflight
from experiments.hosts.options import Join
from experiments.hosts.processes import Command, ProcessFailed, python, started
from experiments.utils import signals


def main(
    config: Join, command: Sequence[str], run: Callable[[Sequence[str]], None]
) -> None:
    """Runs a command together with the other processes, in a child that it watches.

    XLA ends processes from C++, without a readable error. So the process that the user
    starts only starts a child, watches it, and reports why it ended.

    Args:
      config: how many processes there are, and where.
      command: of `python -m experiments`, with its options.
      run: runs the command in this process.
    """
    if member.PARENT in os.environ:
        member.take_part(config, command, run)
    else:
        _watch(config, command)


def arguments(command: Sequence[str], **options: str | int | None) -> list[str]:
    """The command line of a process that joins the others and runs a command."""
    flags = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in options.items()
        if value is not None
    ]
    return python("-m", "experiments", "join", *flags, *command)


def _watch(config: Join, command: Sequence[str]) -> None:
    """Runs the command in a child process, and reports why that ended."""
    signals.unwind()
    preflight.check_hostname()
    if config.coordinator and config.host == 0:
        preflight.check_coordinator_here(config.coordinator)
    elif config.coordinator:
        waits = f"Waiting for process 0 at {config.coordinator}"
        limit = f"for at most {config.patience} seconds (`--patience`)."
        with preflight.patient(f"{waits}, {limit}"):
            preflight.wait_for_coordinator(config.coordinator, config.patience)
    child = Command(
        arguments(command, **dataclasses.asdict(config)),
        {member.PARENT: str(os.getpid())},
    )
    try:
        with started([child]) as group:
            group.wait(on_output=signals.write)
    except ProcessFailed as error:
        how = f"the process {error.how}." if error.code < 0 else ""
        words = [*filter(None, [how, causes.cause(error.output), signals.kept()])]
        if words:
            signals.say("\n".join(words))
        raise SystemExit(error.status) from None
