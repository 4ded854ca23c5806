"""The output of every command: plain characters where a terminal knows no others."""

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
    """Opens nothing in place of standard streams that were closed from the start.

    Else the next file to be opened takes the place of one, and what JAX's C++ logs goes
    into it: into a log, or into the pipe by which signals are heard.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115


@contextlib.contextmanager
def output() -> Iterator[None]:
    """Has all written by the end of the block; what is not ASCII only where it can be.

    Raises:
      OSError: if the standard output cannot be written, a full disk for one.
      SystemExit: if nobody reads it any more, without a word.
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
    """Says something beside the results, on the standard error, if somebody hears."""
    with contextlib.suppress(OSError):
        print(words, file=sys.stderr, flush=True)


def _is_read() -> bool:
    """Whether the standard output still leads somewhere; else its pipe is broken."""
    reader = select.poll()
    reader.register(sys.stdout, 0)
    return not reader.poll(0)


def _silence() -> None:
    """Forgets what could not be written, or the interpreter would try it once more."""
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
