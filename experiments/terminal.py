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


@contextlib.contextmanager
def output() -> Iterator[None]:
    """Has all written by the end of the block; what is not ASCII only where it can be.

    Raises:
      OSError: if the standard output cannot be written, a full disk for one.
      SystemExit: if nobody reads it any more, without a word.
    """
    if sys.stdout is None:  # Closed from the start; else a log would take its place.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
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
    """Says something beside the results, on the standard error."""
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
