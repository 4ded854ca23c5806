"""Output streams of all commands; ASCII where the terminal has no other characters."""

import codecs
import contextlib
import io
import os
import select
import sys
import unicodedata
from collections.abc import Iterator

_ERRORS = "gmc_jax_plain"
_PLAIN = {
    "±": "+-",
    "·": ".",
    "…": ".",
    "\N{EN DASH}": "-",
    "λ": "lambda*",
    "η": "eta*",
}


def open_streams() -> None:
    """Opens `/dev/null` for each standard stream that was closed from the start.

    Otherwise the next file that is opened gets the stream's number. JAX's C++ would
    then log into that file: a record, or the pipe that signals arrive through.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # `os.open` returns the lowest free number, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115


@contextlib.contextmanager
def output() -> Iterator[None]:
    """Flushes the output at the end of a block, with ASCII where nothing else works.

    Raises:
      OSError: if the standard output cannot be written, such as on a full disk.
      SystemExit: if nothing reads the standard output any more; no message.
    """
    open_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if _is_read():
            raise
        _silence()
        raise SystemExit(1) from None
    except OSError:
        try:
            sys.stdout.flush()
        except OSError as error:
            _silence()
            place = "the standard output"
            raise OSError(error.errno, error.strerror, place) from None
        raise


def note(words: str) -> None:
    """Prints a remark to the standard error, if that is open."""
    with contextlib.suppress(OSError, ValueError):
        print(words, file=sys.stderr, flush=True)


def _is_read() -> bool:
    """Whether something still reads the standard output."""
    reader = select.poll()
    reader.register(sys.stdout, 0)
    return not reader.poll(0)


def _silence() -> None:
    """Discards the output that is left; the interpreter would try to write it again."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _in_plain_characters(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(map(_plain, missing)), error.end


def _plain(character: str) -> str:
    if character in _PLAIN:
        return _PLAIN[character]
    name = unicodedata.name(character, "")
    if name.startswith("BOX DRAWINGS"):
        lines = {"HORIZONTAL": "-", "VERTICAL": "|"}
        return lines.get(name.split()[-1], "+") if " AND " not in name else "+"
    letters = unicodedata.normalize("NFKD", character).encode("ascii", "ignore")
    return letters.decode() or "?"


codecs.register_error(_ERRORS, _in_plain_characters)
