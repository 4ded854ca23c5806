"""What SIGINT, SIGTERM and SIGHUP do to a command, and what it says last."""

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
"""The variable that names a file for the directory of the record that is written."""

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_recorded: list[Path] = []  # Where the record is that was opened last, if one was.
_temporary: list[str] = []  # Directories to take away.
_came: list[int] = []  # The signal that `unwind` has raised.


class Ended(KeyboardInterrupt):
    """A signal that ends a command.

    Attributes:
      number: of the signal.
    """

    def __init__(self, number: int):
        """Of a signal."""
        super().__init__()
        self.number = number


def end_at_once() -> None:
    """Ends this process at such a signal, wherever it is, with its last words.

    Nothing is unwound: exceptions from outside get lost in callbacks of JAX, threads
    of orbax complain of them, and XLA's own run on while Python is taken apart. What is
    on disk is whole at any moment. A second signal does not wait for the words.
    """
    heard, sender = os.pipe()
    os.set_blocking(sender, False)
    _handle(lambda number, frame: None)
    signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
    threading.Thread(target=_listen, args=(heard,), daemon=True).start()


def unwind() -> None:
    """Raises `Ended` at such a signal; a second one ends this process at once.

    It is for commands that have processes and links to take away, and do not compute.
    """

    def end(number: int, frame: FrameType | None) -> None:
        _handle(signal.SIG_DFL)
        _came.append(number)
        raise Ended(number)

    signal.set_wakeup_fd(-1)
    _handle(end)


def raise_again() -> None:
    """Raises `Ended` once more if it was raised, for loops that wait.

    What is raised in a callback of JAX or of the garbage collector is lost there.
    """
    if _came:
        raise Ended(_came[0])


def end_in_silence() -> None:
    """Leaves such a signal to the kernel, and the last words to another process."""
    signal.set_wakeup_fd(-1)
    _handle(signal.SIG_DFL)


def recording(path: Path) -> None:
    """Notes where the record is, for the last words of this process and its parent."""
    _recorded[:] = [path]
    if RECORD in os.environ:
        Path(os.environ[RECORD]).write_text(str(path))


def forget() -> None:
    """Starts anew: no record was opened, and no signal came."""
    _recorded.clear()
    _came.clear()


def kept() -> str:
    """What the record holds, in words; nothing if nothing is kept."""
    if not _recorded:
        return ""
    from experiments.training import remains

    return remains.words(_recorded[0])


def say(words: str) -> None:
    """Writes last words, on a terminal with a cursor and a line of their own."""
    with contextlib.suppress(OSError):
        if os.isatty(1) and os.environ.get("TERM") != "dumb":
            os.write(1, b"\x1b[?25h\n")  # Whoever drew a bar here has hidden it.
    write(f"{words}\n".encode(errors="replace"))


def write(said: bytes) -> None:
    """Writes to the standard error, if somebody hears; from any thread, at any time."""
    with contextlib.suppress(OSError):
        os.write(2, said)


def last_words(number: int) -> str:
    """What a command says that a signal ends."""
    how = "interrupted"
    if number != signal.SIGINT:
        how = f"ended by {signal.Signals(number).name}"
    return f"{how}; {kept() or 'nothing kept'}"


@contextlib.contextmanager
def temporary_directory() -> Iterator[str]:
    """A directory for the length of a block, gone even if the process ends at once."""
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
        # `nohup` and a shell's background ignore some, and mean it.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _listen(heard: int) -> None:
    number = os.read(heard, 1)[0]
    threading.Thread(target=_end, args=(number,), daemon=True).start()
    os._exit(128 + os.read(heard, 1)[0])


def _end(number: int) -> None:
    try:
        say(last_words(number))
        for directory in _temporary:
            shutil.rmtree(directory, ignore_errors=True)
    finally:
        os._exit(128 + number)
