"""Failures that need no traceback, in one line: what failed, and what to do."""

import contextlib
import errno
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

_SPACE = "Free some space and give the same command again: what is on disk stays."
_ACCESS = "Give yourself the permission, or name another place."
_REMEDIES = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: _SPACE,
    errno.EACCES: _ACCESS,
    errno.EPERM: _ACCESS,
    errno.EROFS: _ACCESS,
    errno.ENOENT: "Name one that exists, or make it first.",
    errno.EISDIR: "Name a file.",
    errno.ENOTDIR: "Name a directory.",
    errno.ENAMETOOLONG: "Name a shorter one.",
    errno.ELOOP: "Name the place that is meant.",
    errno.EIO: "Look at the device, and give the same command again.",
    errno.ESTALE: "Look at the file system, and give the same command again.",
}
"""What the machine refuses and no change of the program would help."""


def in_words(error: BaseException) -> str | None:
    """One line for what this project refuses and for what the machine refuses.

    Returns:
      None for any other error, whose traceback is wanted.
    """
    error = _of_the_machine(error)
    if isinstance(error, OSError) and error.errno in _REMEDIES:
        where = f" ({error.filename})" if error.filename is not None else ""
        return f"{error.strerror}{where}. {_REMEDIES[error.errno]}"
    if isinstance(error, (ValueError, FileNotFoundError)) and _is_ours(error):
        return f"{type(error).__name__}: {error}"
    return None


def hush_threads() -> None:
    """Keeps threads of orbax from saying what fails here, which is said in a line.

    One logs it with its whole traceback, and those of TensorStore answer an event loop
    that has gone with it.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL)

    def say(unraisable: "sys.UnraisableHookArgs") -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            sys.__unraisablehook__(unraisable)

    sys.unraisablehook = say


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Names the file in what goes wrong in the block, where the machine does not."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def _of_the_machine(error: BaseException) -> BaseException:
    """The same, or an OSError that orbax's TensorStore hands on as text."""
    code = re.search(r"\[os_error_code='(\d+)'", str(error))
    if not code or isinstance(error, OSError):
        return error
    file = re.search(r'local file "([^"]+)"', str(error))
    return OSError(int(code[1]), os.strerror(int(code[1])), file[1] if file else None)


def _is_ours(error: BaseException) -> bool:
    """Whether this project raised it, in words that need no traceback."""
    raised = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    return raised.is_relative_to(Path(__file__).parents[2])
