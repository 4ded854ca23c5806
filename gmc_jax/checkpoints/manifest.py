"""Manifests: what a checkpoint holds, written when all of it is there."""

import json
import os
import pathlib
import re
import secrets
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from gmc_jax.checkpoints.compatibility import Leaf
from gmc_jax.utils.multihost import Json

_FOLDER = re.compile(r"([0-9]+)-[0-9a-f]{8}")
_MARK = "gmc_jax"  # An empty file in each folder of ours: none without it is removed.
_START = b'{"gmc_jax": "checkpoint", '  # Of each manifest of ours.
_CHUNK = 2**20


class Manifest(NamedTuple):
    """What a checkpoint holds.

    Attributes:
      step: of training.
      folder: that is its own, beside the manifest.
      workers: whose state it is.
      leaves: of the state, in order.
      about: what the user says of the training.
      extras: what else was saved.
      files: by their paths in the folder's `arrays`, sizes and checksums.
    """

    step: int
    folder: str
    workers: int
    leaves: list[Leaf]
    about: dict[str, Json]
    extras: dict[str, Json]
    files: dict[str, list[int]]


def arrays(directory: pathlib.Path, folder: str) -> pathlib.Path:
    """Where the files of a checkpoint are."""
    return directory / folder / "arrays"


def write(directory: pathlib.Path, manifest: Manifest) -> None:
    """Makes files a checkpoint: at once, in the place of any other of that step."""
    body = json.dumps(manifest._asdict())
    said = {"gmc_jax": "checkpoint", "checksum": zlib.crc32(body.encode())}
    draft = directory / manifest.folder / "manifest"
    with draft.open("w", encoding="utf-8") as file:
        json.dump({**said, "body": body}, file)
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
        text = path.read_bytes()
        if not text.startswith(_START):
            raise ValueError("it does not begin as one")
        said = json.loads(text)
        body = said["body"]
        if zlib.crc32(body.encode()) != said["checksum"]:
            raise ValueError("its bytes have changed")
        manifest = parsed(json.loads(body))
        if manifest.step != step:
            raise ValueError(f"it is of step {manifest.step}")
        return manifest
    except FileNotFoundError:
        raise ValueError(f"its manifest `{path}` is missing") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"its manifest `{path}` is damaged ({error})") from None


def parsed(fields: dict) -> Manifest:
    """A manifest out of what JSON makes of one."""
    manifest = Manifest(**fields)
    return manifest._replace(leaves=[Leaf(*leaf) for leaf in manifest.leaves])


def steps(directory: pathlib.Path) -> list[int]:
    """The steps of all manifests of ours, whole or not, the newest first.

    Raises:
      OSError: if nobody can tell; a directory that is not there has none.
    """
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    # Not what `int` reads as well: 007, or digits of other scripts.
    numbers = [re.fullmatch(r"(0|[1-9][0-9]*)\.json", name) for name in names]
    found = [int(number[1]) for number in numbers if number]
    ours = [step for step in found if _may_be_ours(_path(directory, step))]
    return sorted(ours, reverse=True)


def complete_steps(directory: pathlib.Path) -> list[int]:
    """The steps whose files are all there and long enough, the newest first."""
    return [step for step in steps(directory) if not find_damage(directory, step)]


def choose(directory: pathlib.Path, step: int | None) -> Manifest:
    """The manifest of a step, or of the newest that is whole.

    Raises:
      ValueError: if there is none, with what is wrong, and what is not.
    """
    found = complete_steps(directory) if step is None else [step]
    if not found:
        damage = [(at, find_damage(directory, at)) for at in steps(directory)]
        wrong = "".join(f"; of step {at}, {what}" for at, what in damage)
        raise ValueError(
            f"`{directory}` holds no checkpoint that is whole{wrong}. Where "
            "`latest` is None, start anew."
        )
    if wrong := find_damage(directory, found[0]):
        raise ValueError(not_whole(directory, found[0], wrong))
    return read(directory, found[0])


def not_whole(directory: pathlib.Path, step: int, wrong: str) -> str:
    """What to say of a damaged checkpoint, and which other one is whole."""
    found = steps(directory)
    before = [at for at in found if at < step]
    after = [at for at in reversed(found) if at > step]
    for at in before + after:
        if not find_damage(directory, at, thorough=True):
            where = "before" if at < step else "after"
            remedy = f"The one {where}, {at}, is whole: `restore(like, step={at})`."
            break
    else:
        remedy = "No other one is whole: start anew, in another directory."
    return f"the checkpoint of step {step} is not whole: {wrong}. {remedy}"


def find_damage(directory: pathlib.Path, step: int, thorough: bool = False) -> str:
    """What is wrong with a checkpoint; thoroughly, by checksums. Nothing if whole."""
    try:
        manifest = read(directory, step)
    except ValueError as error:
        return str(error)
    for name, (size, _) in manifest.files.items():
        path = arrays(directory, manifest.folder) / name
        try:
            now = path.stat().st_size
        except OSError:
            return f"its file `{path}` is missing"
        if now != size:
            return f"its file `{path}` has {now} bytes, and had {size}"
    if not thorough:
        return ""
    folder = arrays(directory, manifest.folder)
    return changed(manifest, [checksum(folder / name) for name in manifest.files])


def changed(manifest: Manifest, sums: Sequence[int]) -> str:
    """Which file has other bytes, by the checksums of all; nothing if none has."""
    for (name, (_, was)), now in zip(manifest.files.items(), sums, strict=True):
        if now != was:
            file = arrays(pathlib.Path(), manifest.folder) / name
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


def prune(directory: pathlib.Path, step: int, keep: int) -> None:
    """Removes all but so many that are whole, the newest of which is of this step."""
    kept = [at for at in complete_steps(directory) if at <= step][:keep]
    if step not in kept:  # Whatever happened to it, the others are still good.
        return
    for at in steps(directory):
        path = _path(directory, at)
        if not kept[-1] <= at <= step and _is_ours(path):
            path.unlink()
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
        if (path / _MARK).is_file() and not path.is_symlink():
            _remove(path)


@contextmanager
def new_folder(directory: pathlib.Path, step: int) -> Iterator[str]:
    """Makes a folder for files, and removes it again if no checkpoint comes of it.

    Yields its name. What others left, who were stopped, is removed before.

    Raises:
      ValueError: if a file of somebody else's is where the manifest is to be.
    """
    path = _path(directory, step)
    replaceable = _may_be_ours(path) and os.access(path, os.R_OK)
    if os.path.lexists(path) and not replaceable:
        raise ValueError(
            f"`{path}`, where the manifest of step {step} is to be, is none of "
            "`Checkpoints`. Move it away, or give another directory."
        )
    clean(directory)
    name = f"{step}-{secrets.token_hex(4)}"
    try:
        (directory / name).mkdir()
        (directory / name / _MARK).touch()
        yield name
    except BaseException:
        try:
            saved = read(directory, step).folder == name
        except ValueError:
            saved = False
        if not saved:
            _remove(directory / name)
        raise


@contextmanager
def only_writer(directory: pathlib.Path) -> Iterator[None]:
    """Waits until no other process writes, and keeps others from it; they may read.

    However a process ends, its lock goes with it.
    """
    import fcntl  # There is none on Windows, where the rest of the package runs.

    with (directory / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove(folder: pathlib.Path) -> None:
    """Removes a folder, as far as it can be; the mark last, so that it is found."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != _MARK:
                path.unlink()
        (folder / _MARK).unlink(missing_ok=True)
        folder.rmdir()


def _may_be_ours(path: pathlib.Path) -> bool:
    """Whether a file is a manifest, be it one that ends too early or is unreadable."""
    return path.is_file() and _START.startswith(_start_of(path))


def _is_ours(path: pathlib.Path) -> bool:
    """Whether a file surely is a manifest."""
    return path.is_file() and _start_of(path) == _START


def _start_of(path: pathlib.Path) -> bytes:
    """The first bytes of a file; none where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(_START))
    except OSError:
        return b""


def _path(directory: pathlib.Path, step: int) -> pathlib.Path:
    return directory / f"{step}.json"
