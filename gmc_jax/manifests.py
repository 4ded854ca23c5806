"""Manifests: what a checkpoint holds, written when all of it is there."""

import json
import os
import pathlib
import re
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from gmc_jax.descriptions import Leaf
from gmc_jax.processes import Plain

_FOLDER = re.compile(r"(\d+)-[0-9a-f]{8}\b.*")  # Orbax appends to it while it writes.
_CHUNK = 2**20


class Manifest(NamedTuple):
    """What a checkpoint holds.

    Attributes:
      step: of training.
      folder: that holds its files, beside the manifest.
      workers: whose state it is.
      leaves: of the state, in order.
      about: what the user says of the training.
      extras: what else was saved.
      files: by their paths in the folder, sizes and checksums.
    """

    step: int
    folder: str
    workers: int
    leaves: list[Leaf]
    about: dict[str, Plain]
    extras: dict[str, Plain]
    files: dict[str, list[int]]


def write(directory: pathlib.Path, manifest: Manifest) -> None:
    """Makes files a checkpoint: at once, in the place of any other of that step."""
    body = json.dumps(manifest._asdict())
    text = json.dumps({"checksum": zlib.crc32(body.encode()), "body": body})
    draft = directory / f"{manifest.folder}.draft"
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, _path(directory, manifest.step))
    folder = os.open(directory, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def read(directory: pathlib.Path, step: int) -> Manifest:
    """Reads a manifest.

    Raises:
      ValueError: if there is none, or it is not as it was written.
    """
    path = _path(directory, step)
    try:
        said = json.loads(path.read_bytes())
        body = said["body"]
        if zlib.crc32(body.encode()) != said["checksum"]:
            raise ValueError("its bytes have changed")
        return parsed(json.loads(body))
    except FileNotFoundError:
        raise ValueError(f"its manifest `{path}` is missing") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"its manifest `{path}` is damaged ({error})") from None


def parsed(fields: dict) -> Manifest:
    """A manifest out of what JSON makes of one."""
    manifest = Manifest(**fields)
    return manifest._replace(leaves=[Leaf(*leaf) for leaf in manifest.leaves])


def steps(directory: pathlib.Path) -> list[int]:
    """The steps of all manifests, whole or not, the newest first."""
    names = [path.stem for path in directory.glob("*.json")]
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


def whole(directory: pathlib.Path) -> list[int]:
    """The steps whose files are all there and long enough, the newest first."""
    return [step for step in steps(directory) if not fault(directory, step)]


def fault(directory: pathlib.Path, step: int, thorough: bool = False) -> str:
    """What is wrong with a checkpoint; thoroughly, by checksums. Nothing if whole."""
    try:
        manifest = read(directory, step)
    except ValueError as error:
        return str(error)
    for name, (size, _) in manifest.files.items():
        path = directory / manifest.folder / name
        try:
            now = path.stat().st_size
        except OSError:
            return f"its file `{path}` is missing"
        if now != size:
            return f"its file `{path}` has {now} bytes, and had {size}"
    if not thorough:
        return ""
    folder = directory / manifest.folder
    return changed(manifest, [checksum(folder / name) for name in manifest.files])


def changed(manifest: Manifest, sums: Sequence[int]) -> str:
    """Which file has other bytes, by the checksums of all; nothing if none has."""
    for (name, (_, was)), now in zip(manifest.files.items(), sums, strict=True):
        if now != was:
            file = f"{manifest.folder}/{name}"
            return f"the bytes of its file `{file}` have changed, or cannot be read"
    return ""


def checksum(path: pathlib.Path) -> int:
    """CRC-32 of a file; -1 cannot be one, and is that of a file that is unreadable."""
    total = 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                total = zlib.crc32(chunk, total)
    except OSError:
        return -1
    return total


def sizes(folder: pathlib.Path) -> dict[str, int]:
    """Of all files in a folder, by their paths in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def keep_up_to(directory: pathlib.Path, step: int, keep: int) -> None:
    """Removes all but so many that are whole, the newest of which is of this step."""
    kept = [at for at in whole(directory) if at <= step][:keep]
    if step not in kept:  # Whatever happened to it, the others are still good.
        return
    for at in steps(directory):
        if not kept[-1] <= at <= step:
            _path(directory, at).unlink()
    clean(directory)


def clean(directory: pathlib.Path) -> None:
    """Removes what belongs to no manifest: replaced, or of writes that did not end."""
    named, damaged = set(), set()
    for step in steps(directory):
        try:
            named.add(read(directory, step).folder)
        except ValueError:
            damaged.add(step)  # Which folder is its own, nobody knows.
    for path in directory.iterdir():
        ours = _FOLDER.fullmatch(path.name)
        if not ours or path.name in named or int(ours[1]) in damaged:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def only_writer(directory: pathlib.Path, *, wait: bool) -> Iterator[bool]:
    """Keeps other processes from writing; they may read.

    Yields whether nobody else is writing, which with `wait` is waited for. However a
    process ends, its lock goes with it.
    """
    import fcntl  # There is none on Windows, where the rest of the package runs.

    with (directory / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def _path(directory: pathlib.Path, step: int) -> pathlib.Path:
    return directory / f"{step}.json"
