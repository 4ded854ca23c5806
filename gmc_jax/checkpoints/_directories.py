"""Where checkpoints can be."""

import fnmatch
import os
import pathlib
import re


def path_of(directory: str | os.PathLike[str]) -> str:
    """A directory as it was said; raises TypeError for what is no path."""
    if not isinstance(directory, str | os.PathLike):
        raise TypeError(f"`directory` must be a path, but is {directory!r}.")
    return os.fsdecode(directory)


def usable(said: str) -> str:
    """The absolute path of a directory; raises ValueError where there can be none."""
    if not said:
        raise ValueError('`directory` is empty. Give a path, `"."` for this folder.')
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", said):
        raise ValueError(
            f"`directory` must be a path of the file system, but is the URL `{said}`. "
            "Mount the bucket, or save to a local directory and copy it."
        )
    path = os.path.expanduser(said)
    if path.startswith("~"):
        raise ValueError(
            f"`directory` is `{said}`, and there is no such home. Write it out; for a "
            f"folder of that name give `./{said}`."
        )
    try:
        path = os.path.realpath(path)
        place = _nearest(path)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"`directory` must be a path that the system can look up, but is {said!r} "
            f"({error}). Give another path."
        ) from None
    _check_name(path)
    if not place.is_dir():
        raise ValueError(
            f"`directory` is `{said}`, but `{place}` is a file. Give another path."
        )
    missing = str(place) != path
    if not os.access(place, os.X_OK | (os.W_OK if missing else os.R_OK)):
        what = "be made in" if missing else "be read: no permission for"
        raise ValueError(
            f"`directory` is `{said}`, which cannot {what} `{place}`. Give another "
            "path, or yourself the permission."
        )
    return path


def _nearest(path: str) -> pathlib.Path:
    """What is there of a path, a folder or a file; OSError where nobody can tell."""
    place = pathlib.Path(path)
    while True:
        try:
            place.stat()
        except (FileNotFoundError, NotADirectoryError):
            place = place.parent
        else:
            return place


def _check_name(path: str) -> None:
    """Raises ValueError if orbax would take another path for this one.

    It looks for the parts that processes have written as for a pattern: `[...]` does
    not match itself. A backslash is a slash for TensorStore.
    """
    parts = path.split("/")
    literal = all(fnmatch.fnmatchcase(part, part) for part in parts)
    encoded = path.encode(errors="ignore").decode() == path
    if "\\" in path or not literal or not encoded:
        raise ValueError(
            "`directory` must have a name that orbax takes as it is, without `[...]`, "
            f"backslashes or bytes that are not UTF-8, but is {path!r}. Rename it."
        )
