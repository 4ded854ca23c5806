"""Reports a failure that needs no traceback in one line: what failed, what to do."""

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
    errno.ELOOP: "Name the place that the link should lead to.",
    errno.EIO: "Look at the device, and give the same command again.",
    errno.ESTALE: "Look at the file system, and give the same command again.",
}
"""Errors of the machine that no change of the program would help."""


def in_words(error: BaseException) -> str | None:
    """Describes an error of this project or of the machine in one line.

    Returns:
      None for any other error, whose traceback is needed.
    """
    error = _of_the_machine(error)
    if isinstance(error, OSError) and error.errno in _REMEDIES:
        where = f" ({error.filename})" if error.filename is not None else ""
        return f"{error.strerror}{where}. {_REMEDIES[error.errno]}"
    if isinstance(error, (ValueError, FileNotFoundError)) and _is_ours(error):
        return f"{type(error).__name__}: {error}"
    return None


def hush_threads() -> None:
    """Silences orbax's threads, since the command reports their failure in one line.

    One of them logs the whole traceback. Those of TensorStore call an event loop that
    is already closed.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL)

    def say(unraisable: "sys.UnraisableHookArgs") -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            sys.__unraisablehook__(unraisable)

    sys.unraisablehook = say


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Adds the file's name to an `OSError` of the block that does not have one."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def _of_the_machine(error: BaseException) -> BaseException:
    """The error, or the `OSError` that TensorStore has turned into text."""
    code = re.search(r"\[os_error_code='(\d+)'", str(error))
    if not code or isinstance(error, OSError):
        return error
    file = re.search(r'local file "([^"]+)"', str(error))
    return OSError(int(code[1]), os.strerror(int(code[1])), file[1] if file else None)


def _is_ours(error: BaseException) -> bool:
    """Whether this project raised the error."""
    raised = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    return raised.is_relative_to(Path(__file__).parents[2])
