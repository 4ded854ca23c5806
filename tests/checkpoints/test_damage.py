"""Tests of damaged files: they are found, and an intact checkpoint is named."""

import os
import pathlib
import subprocess
from collections.abc import Callable

import chex
import jax
import pytest

from gmc_jax import Checkpoints
from gmc_jax.checkpoints import manifest
from gmc_jax.checkpoints.array_store import ArrayStore
from tests.support.checkpointing import same_bits, small


def files_of(directory: pathlib.Path, step: int) -> list[pathlib.Path]:
    """The files of a checkpoint, those with arrays in them first."""
    folder = manifest.arrays(directory, manifest.read(directory, step).folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(files, key=lambda path: "d" not in path.relative_to(folder).parts)


def flip(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[pathlib.Path], object]] = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size - 1),
    "emptied": lambda path: os.truncate(path, 0),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "missing": pathlib.Path.unlink,
    "flipped": flip,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_found_and_an_intact_checkpoint_named(two, damage):
    """Whichever file it is."""
    directory, layout, state = two
    checkpoints = Checkpoints(directory, layout)
    for path in files_of(directory, 60):
        before = path.read_bytes()
        if not before:
            continue
        DAMAGES[damage](path)
        remedy = r"`restore\(like, step=40\)`"
        with pytest.raises(
            ValueError, match=rf"step 60 is damaged.*{path.name}.*{remedy}"
        ):
            checkpoints.restore(state, step=60)
        # Only checksums tell what kept its size.
        assert checkpoints.latest == (60 if damage == "flipped" else 40)
        assert checkpoints.restore(state, step=40)[0] == 40
        path.write_bytes(before)
    assert checkpoints.restore(state)[0] == 60


@pytest.mark.parametrize("damage", DAMAGES)
def test_without_an_intact_manifest_there_is_no_checkpoint(two, damage):
    directory, layout, state = two
    DAMAGES[damage](directory / "60.json")
    checkpoints = Checkpoints(directory, layout)
    assert checkpoints.latest == 40
    step, ours, _ = checkpoints.restore(state)
    assert step == 40
    chex.assert_trees_all_equal(ours, jax.tree.map(lambda leaf: leaf + 40, state))
    with pytest.raises(ValueError, match=r"step 60 is damaged: its manifest.*step=40"):
        checkpoints.restore(state, step=60)


def test_without_a_complete_checkpoint_the_error_says_why(two):
    directory, layout, state = two
    for step in (40, 60):
        files_of(directory, step)[0].unlink()
    checkpoints = Checkpoints(directory, layout)
    assert checkpoints.latest is None
    with pytest.raises(ValueError, match=r"no complete checkpoint; step 60: its file"):
        checkpoints.restore(state)
    with pytest.raises(ValueError, match=r"step 40 is damaged.*No other one is"):
        checkpoints.restore(state, step=40)
    empty = Checkpoints(directory / "empty", layout)
    with pytest.raises(ValueError, match=r"holds no complete checkpoint\. If"):
        empty.restore(state)


def test_a_damaged_checkpoint_can_be_saved_anew(two):
    directory, layout, state = two
    flip(files_of(directory, 60)[0])
    with Checkpoints(directory, layout) as checkpoints:
        checkpoints.restore(state, step=40)
        checkpoints.save(60, state)
        chex.assert_trees_all_equal(checkpoints.restore(state)[1], state)


@pytest.mark.parametrize(
    ("where", "name", "error"),
    [
        (pathlib.Path, "touch", OSError),
        (ArrayStore, "write", OSError),
        (ArrayStore, "write", KeyboardInterrupt),
        (ArrayStore, "check", OSError),
        (manifest, "sizes", KeyboardInterrupt),
        (manifest, "checksum", OSError),
        (manifest, "write", OSError),
        (manifest, "write", KeyboardInterrupt),
    ],
)
def test_a_save_that_fails_leaves_nothing_and_can_be_repeated(
    two, monkeypatch, where, name, error
):
    """Wherever it fails: leftovers of failed saves once piled up on a full disk."""
    directory, layout, state = two
    before = set(directory.rglob("*"))

    def fail(*_):
        raise error("no space left on device")

    with Checkpoints(directory, layout) as checkpoints:
        checkpoints.restore(state)
        with monkeypatch.context() as patched:
            patched.setattr(where, name, fail)
            with pytest.raises(error, match="no space left"):
                checkpoints.save(70, state)
        assert set(directory.rglob("*")) == before
        assert checkpoints.latest == 60
        if error is KeyboardInterrupt:
            checkpoints.save(70, state)
            assert manifest.complete_steps(directory) == [70, 60]


def test_a_checkpoint_survives_an_interrupt_after_its_manifest(tmp_path, monkeypatch):
    layout, state = small()
    with Checkpoints(tmp_path, layout, keep=1) as checkpoints:

        def fail(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(manifest, "prune", fail)
            with pytest.raises(KeyboardInterrupt):
                checkpoints.save(1, state)
        assert checkpoints.restore(state)[0] == 1
        checkpoints.save(2, state)
    assert manifest.steps(tmp_path) == [2]


@pytest.mark.parametrize("lost", ["array", "file"])
def test_files_are_checked_before_the_manifest_is_written(tmp_path, monkeypatch, lost):
    """A save that loses something is no checkpoint; once it was, and the latest.

    Orbax takes no offence where it finds no parts to join; and of what could not be
    read, -1 was written as the checksum, and found again.
    """
    layout, state = small()
    write = ArrayStore.write
    with Checkpoints(tmp_path, layout) as checkpoints:
        with monkeypatch.context() as patched:
            if lost == "file":
                patched.setattr(manifest, "checksum", lambda _: -1)
            else:
                patched.setattr(
                    ArrayStore,
                    "write",
                    lambda self, folder, leaves: write(self, folder, leaves[1:]),
                )
            with pytest.raises(OSError, match="was written without an error, but"):
                checkpoints.save(1, state)
        assert checkpoints.latest is None
        checkpoints.save(1, state)
        same_bits(checkpoints.restore(state)[1], state)


# Orbax drops futures that failed, and nobody has asked them why.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
def test_on_a_disk_that_is_full_and_on_one_that_is_read_only(tmp_path):
    """On real ones, which only root may have made."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(tmp_path)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    layout, state = small(size=30_000)
    directory, filler = tmp_path / "run", tmp_path / "filler"
    try:
        with Checkpoints(directory, layout, keep=1) as checkpoints:
            checkpoints.save(1, state)
            room = os.statvfs(tmp_path)
            filler.write_bytes(bytes(room.f_bavail * room.f_bsize - 200_000))
            before = set(directory.rglob("*"))
            for _ in range(5):
                # Which error depends on which file comes first.
                with pytest.raises((ValueError, OSError), match="No space left"):
                    checkpoints.save(2, state)
                assert set(directory.rglob("*")) == before
            filler.unlink()
            checkpoints.save(2, state)
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        with Checkpoints(directory, layout) as checkpoints:
            same_bits(checkpoints.restore(state)[1], state)
            with pytest.raises(OSError, match="Read-only file system"):
                checkpoints.save(3, state)
        with pytest.raises(ValueError, match="cannot be made in"):
            Checkpoints(tmp_path / "other", layout)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
