"""Parses command-line options by the signature of a function or a dataclass."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import tyro

from experiments.commands import COMMANDS, PROGRAM

Result = TypeVar("Result")

SEVERAL = ("run", "network")
"""The commands that several processes can run together."""


def call(
    function: Callable[..., Result], command: str, options: Sequence[str]
) -> Result:
    """Calls a function, or makes a dataclass, with the values of the options."""
    return tyro.cli(function, prog=f"{PROGRAM} {command}", args=options)


def split(options: Sequence[str], by: str) -> tuple[Sequence[str], Sequence[str]]:
    """Separates the options of `launch` or `join` from the command that it runs.

    Args:
      options: those of `by`, followed by a command with its own options.
      by: `launch` or `join`.

    Returns:
      The options of `by`, and the command with its options.

    Raises:
      ValueError: if the command runs in a single process only.
    """
    commands = [place for place, word in enumerate(options) if word in COMMANDS]
    place = commands[0] if commands else len(options)
    command = options[place:] or ("run", "digits")
    if command[0] not in SEVERAL:
        raise ValueError(
            f"`{by}` must run a command of several processes, {' or '.join(SEVERAL)}, "
            f"got `{command[0]}`, which runs in one. Start it without `{by}`."
        )
    return options[:place], command
