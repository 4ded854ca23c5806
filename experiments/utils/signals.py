"""Ends a command at SIGINT, SIGTERM or SIGHUP, and prints one last line."""

import contextlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

RECORD = "GMC_JAX_RECORD"
"""An environment variable: the file to which a child writes its record's directory."""

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# The directory of the latest record, if there is one, and what describes it.
_recorded: list[tuple[Path, Callable[[Path], str]]] = []
_temporary: list[str] = []  # Directories to remove.
_raised: list[int] = []  # The signal for which `unwind` has raised `Ended`.


class Ended(KeyboardInterrupt):
    """A signal has ended the command.

    Attributes:
      number: of the signal.
    """

    def __init__(self, number: int):
        """Keeps the number of the signal."""
        super().__init__()
        self.number = number


def end_at_once() -> None:
    """Makes SIGINT, SIGTERM and SIGHUP print the last line and end this process.

    Nothing is unwound. An exception would get lost in a callback of JAX, threads of
    orbax would report it, and XLA's threads would outlive Python's shutdown. Files on
    disk are complete at any moment. A second signal ends the process without the line.
    """
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    _handle(lambda number, frame: None)
    signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
    threading.Thread(target=_listen, args=(receiver,), daemon=True).start()


def unwind() -> None:
    """Makes SIGINT, SIGTERM and SIGHUP raise `Ended`; a second one ends the process.

    Commands that must remove processes and links, and that do not compute, use it.
    """

    def end(number: int, frame: FrameType | None) -> None:
        _handle(signal.SIG_DFL)
        _raised.append(number)
        raise Ended(number)

    signal.set_wakeup_fd(-1)
    _handle(end)


def raise_again() -> None:
    """Raises `Ended` again if it was raised before; for loops that wait.

    An exception that is raised in a callback of JAX or of the garbage collector is
    lost.
    """
    if _raised:
        raise Ended(_raised[0])


def end_in_silence() -> None:
    """Restores the default of SIGINT, SIGTERM and SIGHUP; nothing is printed."""
    signal.set_wakeup_fd(-1)
    _handle(signal.SIG_DFL)


def recording(path: Path, describe: Callable[[Path], str]) -> None:
    """Registers the record that the last line of this process and its parent names.

    Args:
      path: the directory of the record.
      describe: maps the directory to a description of what it holds; empty if nothing.
    """
    _recorded[:] = [(path, describe)]
    if RECORD in os.environ:
        Path(os.environ[RECORD]).write_text(str(path))


def forget() -> None:
    """Clears the registered record and the signal that was raised."""
    _recorded.clear()
    _raised.clear()


def kept() -> str:
    """Describes what the registered record holds; empty if nothing is kept."""
    return "".join(describe(path) for path, describe in _recorded)


def say(words: str) -> None:
    """Prints the last line; on a terminal, restores the cursor and starts a line."""
    with contextlib.suppress(OSError):
        if os.isatty(1) and os.environ.get("TERM") != "dumb":
            os.write(1, b"\x1b[?25h\n")  # A progress bar has hidden the cursor.
    write(f"{words}\n".encode(errors="replace"))


def write(output: bytes) -> None:
    """Writes to the standard error if it is open; from any thread, at any time."""
    with contextlib.suppress(OSError):
        os.write(2, output)


def last_words(number: int) -> str:
    """The last line of a command that a signal ends."""
    how = "interrupted"
    if number != signal.SIGINT:
        how = f"ended by {signal.Signals(number).name}"
    return f"{how}; {kept() or 'nothing kept'}"


@contextlib.contextmanager
def temporary_directory() -> Iterator[str]:
    """Makes a directory for a block; it is removed even if the process ends at once."""
    with tempfile.TemporaryDirectory() as directory:
        _temporary.append(directory)
        try:
            yield directory
        finally:
            _temporary.remove(directory)


def _handle(
    handler: Callable[[int, FrameType | None], None] | signal.Handlers,
) -> None:
    for number in _ENDING:
        # `nohup` and a shell's background ignore some signals on purpose.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _listen(receiver: int) -> None:
    number = os.read(receiver, 1)[0]
    threading.Thread(target=_end, args=(number,), daemon=True).start()
    os._exit(128 + os.read(receiver, 1)[0])


def _end(number: int) -> None:
    try:
        say(last_words(number))
        for directory in _temporary:
            shutil.rmtree(directory, ignore_errors=True)
    finally:
        os._exit(128 + number)
