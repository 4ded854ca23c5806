"""Options of the command line, read by the signature of what they are for."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import tyro

from experiments.commands import COMMANDS, PROGRAM

Result = TypeVar("Result")

SEVERAL = ("run", "network")
"""The commands that processes can run together."""


def call(
    function: Callable[..., Result], command: str, options: Sequence[str]
) -> Result:
    """Calls a function, or makes a dataclass, of what the options say."""
    return tyro.cli(function, prog=f"{PROGRAM} {command}", args=options)


def split(options: Sequence[str], by: str) -> tuple[Sequence[str], Sequence[str]]:
    """The options of a command that runs another one, and that one with its own.

    Raises:
      ValueError: if the other one is of one process.
    """
    other = [place for place, word in enumerate(options) if word in COMMANDS]
    place = other[0] if other else len(options)
    command = options[place:] or ("run", "digits")
    if command[0] not in SEVERAL:
        raise ValueError(
            f"`{by}` is for what several processes do together, "
            f"{' or '.join(SEVERAL)}, and `{command[0]}` is of one. Start it without "
            f"`{by}`."
        )
    return options[:place], command
