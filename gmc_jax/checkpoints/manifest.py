"""Manifests of checkpoints, each written after the files of its checkpoint."""

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
_MARK = "gmc_jax"  # An empty file in our folders. No folder without it is removed.
_START = b'{"gmc_jax": "checkpoint", '  # The first bytes of every manifest.
_CHUNK = 2**20


class Manifest(NamedTuple):
    """The contents of a checkpoint.

    Attributes:
      step: the step of training.
      folder: the name of its folder, beside the manifest.
      workers: the number of workers of the state.
      leaves: the leaves of the state, in order.
      about: the user's description of the training.
      extras: other values saved with the state.
      files: the size and checksum of each file, by its path in the folder's `arrays`.
    """

    step: int
    folder: str
    workers: int
    leaves: list[Leaf]
    about: dict[str, Json]
    extras: dict[str, Json]
    files: dict[str, list[int]]


def arrays(directory: pathlib.Path, folder: str) -> pathlib.Path:
    """Returns the path of the files of a checkpoint."""
    return directory / folder / "arrays"


def write(directory: pathlib.Path, manifest: Manifest) -> None:
    """Writes a manifest atomically, and replaces one of the same step."""
    body = json.dumps(manifest._asdict())
    head = {"gmc_jax": "checkpoint", "checksum": zlib.crc32(body.encode())}
    draft = directory / manifest.folder / "manifest"
    with draft.open("w", encoding="utf-8") as file:
        json.dump({**head, "body": body}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, _path(directory, manifest.step))
    folder = os.open(directory, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def read(directory: pathlib.Path, step: int) -> Manifest:
    """Reads a manifest.

    Raises:
      ValueError: if it is missing or damaged.
    """
    path = _path(directory, step)
    try:
        text = path.read_bytes()
        if not text.startswith(_START):
            raise ValueError("it does not begin like a manifest")
        document = json.loads(text)
        body = document["body"]
        if zlib.crc32(body.encode()) != document["checksum"]:
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
    """Makes a manifest from its fields as JSON represents them."""
    manifest = Manifest(**fields)
    return manifest._replace(leaves=[Leaf(*leaf) for leaf in manifest.leaves])


def steps(directory: pathlib.Path) -> list[int]:
    """Returns the steps of all manifests, damaged ones too, the newest first.

    Raises:
      OSError: if the directory cannot be read. A missing directory has no steps.
    """
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    # `int` would also accept 007, and digits of other scripts.
    numbers = [re.fullmatch(r"(0|[1-9][0-9]*)\.json", name) for name in names]
    found = [int(number[1]) for number in numbers if number]
    ours = [step for step in found if _may_be_manifest(_path(directory, step))]
    return sorted(ours, reverse=True)


def complete_steps(directory: pathlib.Path) -> list[int]:
    """Returns the steps whose files all exist in full length, the newest first."""
    return [step for step in steps(directory) if not find_damage(directory, step)]


def choose(directory: pathlib.Path, step: int | None) -> Manifest:
    """Reads the manifest of a step, or of the newest complete one.

    Raises:
      ValueError: if there is none. It says what is damaged and what is intact.
    """
    found = complete_steps(directory) if step is None else [step]
    if not found:
        found = steps(directory)
        damages = [f"; step {at}: {find_damage(directory, at)}" for at in found]
        raise ValueError(
            f"`{directory}` holds no complete checkpoint{''.join(damages)}. If "
            "`latest` is None, start training anew."
        )
    if damage := find_damage(directory, found[0]):
        raise ValueError(describe_damage(directory, found[0], damage))
    return read(directory, found[0])


def describe_damage(directory: pathlib.Path, step: int, damage: str) -> str:
    """Writes the error about a damaged checkpoint; it names the nearest intact one."""
    others = {*steps(directory)} - {step}
    for at in sorted(others, key=lambda at: (at > step, abs(at - step))):
        if not find_damage(directory, at, thorough=True):
            where = "before" if at < step else "after"
            remedy = f"The one {where}, {at}, is intact: `restore(like, step={at})`."
            break
    else:
        remedy = "No other one is intact: start training anew, in another directory."
    return f"the checkpoint of step {step} is damaged: {damage}. {remedy}"


def find_damage(directory: pathlib.Path, step: int, thorough: bool = False) -> str:
    """Describes the damage of a checkpoint; empty if there is none.

    Args:
      directory: the directory of the checkpoints.
      step: the step of the checkpoint.
      thorough: whether to compare checksums too, and not only sizes.
    """
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
            return f"its file `{path}` has {now} bytes, but was saved with {size}"
    if not thorough:
        return ""
    folder = arrays(directory, manifest.folder)
    return find_change(manifest, [checksum(folder / name) for name in manifest.files])


def find_change(manifest: Manifest, sums: Sequence[int]) -> str:
    """Names the first file whose checksum has changed; empty if none has."""
    for (name, (_, was)), now in zip(manifest.files.items(), sums, strict=True):
        if now != was:
            file = arrays(pathlib.Path(), manifest.folder) / name
            return f"the bytes of its file `{file}` have changed, or cannot be read"
    return ""


def checksum(path: pathlib.Path) -> int:
    """Returns the CRC-32 of a file; -1, which is no CRC-32, if it cannot be read."""
    total = 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                total = zlib.crc32(chunk, total)
    except OSError:
        return -1
    return total


def sizes(folder: pathlib.Path) -> dict[str, int]:
    """Returns the sizes of all files in a folder, by their paths in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def prune(directory: pathlib.Path, step: int, keep: int) -> None:
    """Removes all checkpoints but the newest complete ones.

    Args:
      directory: the directory of the checkpoints.
      step: the step of the newest one that is kept; later ones are removed.
      keep: how many are kept.
    """
    kept = [at for at in complete_steps(directory) if at <= step][:keep]
    if step not in kept:  # The newest is damaged, so the others are still needed.
        return
    for at in steps(directory):
        path = _path(directory, at)
        if not kept[-1] <= at <= step and _is_manifest(path):
            path.unlink()
    clean(directory)


def clean(directory: pathlib.Path) -> None:
    """Removes folders that no manifest names: replaced, or written only in part."""
    named, damaged = set(), set()
    for step in steps(directory):
        try:
            named.add(read(directory, step).folder)
        except ValueError:
            damaged.add(step)  # Its manifest may have named any folder of this step.
    for path in directory.iterdir():
        match = _FOLDER.fullmatch(path.name)
        if not match or path.name in named or int(match[1]) in damaged:
            continue
        if (path / _MARK).is_file() and not path.is_symlink():
            _remove(path)


@contextmanager
def new_folder(directory: pathlib.Path, step: int) -> Iterator[str]:
    """Makes a folder for files, and removes it again unless a manifest is written.

    Folders that interrupted processes have left are removed first.

    Yields:
      The name of the folder.

    Raises:
      ValueError: if a foreign file has the name of the manifest.
    """
    path = _path(directory, step)
    replaceable = _may_be_manifest(path) and os.access(path, os.R_OK)
    if os.path.lexists(path) and not replaceable:
        raise ValueError(
            f"`{path}` must be free for the manifest of step {step}, but is a file "
            "that `Checkpoints` did not write. Move it away, or give another directory."
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
    """Locks the directory: waits until no other process writes, and lets none write.

    Others may read meanwhile. The lock is released however the process ends.
    """
    import fcntl  # Imported here: Windows lacks it, and runs the rest of the package.

    with (directory / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove(folder: pathlib.Path) -> None:
    """Removes a folder as far as possible, its mark last, so that `clean` finds it."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != _MARK:
                path.unlink()
        (folder / _MARK).unlink(missing_ok=True)
        folder.rmdir()


def _may_be_manifest(path: pathlib.Path) -> bool:
    """Whether a file may be a manifest, perhaps a truncated or unreadable one."""
    return path.is_file() and _START.startswith(_start_of(path))


def _is_manifest(path: pathlib.Path) -> bool:
    """Whether a file certainly is a manifest."""
    return path.is_file() and _start_of(path) == _START


def _start_of(path: pathlib.Path) -> bytes:
    """Returns the first bytes of a file; none if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(_START))
    except OSError:
        return b""


def _path(directory: pathlib.Path, step: int) -> pathlib.Path:
    return directory / f"{step}.json"
