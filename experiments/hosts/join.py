"""The command `join`: runs a command as one process of several that train together."""

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
    """Runs a command together with the others, in a process that this one watches.

    A process that nobody watches starts itself once more and watches that one: XLA ends
    processes from C++, and somebody must have the last word.

    Args:
      config: who and where the others are.
      command: of `python -m experiments`, with its options.
      run: what runs it.
    """
    if member.PARENT in os.environ:
        member.take_part(config, command, run)
    else:
        _watch(config, command)


def arguments(command: Sequence[str], **options: str | int | None) -> list[str]:
    """The arguments of a process that joins the others to run a command."""
    flags = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in options.items()
        if value is not None
    ]
    return python("-m", "experiments", "join", *flags, *command)


def _watch(config: Join, command: Sequence[str]) -> None:
    """Runs this command in another process, whose end it puts in words."""
    signals.unwind()
    preflight.check_own_name()
    if config.coordinator and config.host == 0:
        preflight.check_here(config.coordinator)
    elif config.coordinator:
        waits = f"Waits for process 0 at {config.coordinator}"
        limit = f"for {config.patience} seconds at most (`--patience`)."
        with preflight.patient(f"{waits}, {limit}"):
            preflight.check_there(config.coordinator, config.patience)
    watched = Command(
        arguments(command, **dataclasses.asdict(config)),
        {member.PARENT: str(os.getpid())},
    )
    try:
        with started([watched]) as group:
            group.wait(hear=signals.write)
    except ProcessFailed as error:
        how = f"the process {error.how}." if error.code < 0 else ""
        words = [*filter(None, [how, causes.cause(error.output), signals.kept()])]
        if words:
            signals.say("\n".join(words))
        raise SystemExit(error.status) from None
