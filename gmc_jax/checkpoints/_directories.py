"""Checks of the directory that holds checkpoints."""

import fnmatch
import os
import pathlib
import re


def path_of(directory: str | os.PathLike[str]) -> str:
    """Returns a directory as text; raises TypeError unless it is a path."""
    if not isinstance(directory, str | os.PathLike):
        raise TypeError(f"`directory` must be a path, got {directory!r}.")
    return os.fsdecode(directory)


def usable_path(directory: str) -> str:
    """Returns the absolute path; raises ValueError unless checkpoints can be there."""
    if not directory:
        raise ValueError('`directory` must not be empty; `"."` is this folder.')
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", directory):
        raise ValueError(
            f"`directory` must be a path of the file system, got the URL "
            f"`{directory}`. Mount the bucket, or save to a local directory and copy "
            "it."
        )
    path = os.path.expanduser(directory)
    if path.startswith("~"):
        raise ValueError(
            "`directory` must begin with an existing home if it begins with `~`, got "
            f"`{directory}`. Write the path out; a folder of that name is "
            f"`./{directory}`."
        )
    try:
        path = os.path.realpath(path)
        ancestor = _nearest_existing(path)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"`directory` must be a path that the system can look up, got "
            f"{directory!r} ({error}). Give another path."
        ) from None
    _check_name(path)
    if not ancestor.is_dir():
        raise ValueError(
            f"`directory` must be a folder, got `{directory}`, but `{ancestor}` is a "
            "file. Give another path."
        )
    missing = str(ancestor) != path
    if not os.access(ancestor, os.X_OK | (os.W_OK if missing else os.R_OK)):
        what = "be made in" if missing else "be read: no permission for"
        raise ValueError(
            f"`directory` must be usable, got `{directory}`, which cannot {what} "
            f"`{ancestor}`. Give another path, or grant the permission."
        )
    return path


def _nearest_existing(path: str) -> pathlib.Path:
    """Returns the longest part of a path that exists, a folder or a file.

    Raises:
      OSError: if the system cannot tell.
    """
    ancestor = pathlib.Path(path)
    while True:
        try:
            ancestor.stat()
        except (FileNotFoundError, NotADirectoryError):
            ancestor = ancestor.parent
        else:
            return ancestor


def _check_name(path: str) -> None:
    """Raises ValueError if orbax would use another path in the place of this one.

    Orbax finds the files of each process by a glob pattern, in which `[...]` does not
    match itself. TensorStore treats a backslash as a slash.
    """
    parts = path.split("/")
    literal = all(fnmatch.fnmatchcase(part, part) for part in parts)
    encoded = path.encode(errors="ignore").decode() == path
    if "\\" in path or not literal or not encoded:
        raise ValueError(
            "`directory` must have a name that orbax can use, without `[...]`, "
            f"backslashes and bytes that are not UTF-8, got {path!r}. Rename it."
        )
