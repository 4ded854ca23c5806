"""Runs one command and reports its failure in one line."""

import importlib
import signal
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from experiments.commands import COMMANDS, PROGRAM
from experiments.utils import failures, signals, terminal


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; the modules of the other commands are not imported.

    Args:
      arguments: the command and its options; by default those of this process.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    command, *options = arguments or ("run", "digits")
    signals.forget()
    try:
        with terminal.output():
            if command in ("-h", "--help"):
                Console().print(_usage())
            elif command not in COMMANDS:
                raise SystemExit(
                    f"there is no command {command!r}; the commands are "
                    f"{', '.join(COMMANDS)}. Options follow a command, as in "
                    "`run digits --workers 4`."
                )
            else:
                module = importlib.import_module(f"experiments.commands.{command}")
                module.main(options)
    except KeyboardInterrupt as end:
        number = end.number if isinstance(end, signals.Ended) else signal.SIGINT
        signals.say(signals.last_words(number))
        raise SystemExit(128 + number) from None
    except Exception as error:
        if words := failures.in_words(error):
            raise SystemExit(words) from None
        raise


def _usage() -> Table:
    usage = Table(
        title=f"{PROGRAM} COMMAND; by default `run digits`",
        title_justify="left",
        caption="`COMMAND --help` lists the options of a command.",
        caption_justify="left",
        show_header=False,
        box=None,
    )
    for name, purpose in COMMANDS.items():
        usage.add_row(name, purpose)
    return usage
