"""Tests of manifests: files are a checkpoint once theirs is there."""

import json
import os
import pathlib
import threading
from typing import Any

import pytest

from gmc_jax.checkpoints import manifest
from gmc_jax.checkpoints.compatibility import Leaf
from gmc_jax.checkpoints.manifest import Manifest


def checkpoint(directory: pathlib.Path, step: int, folder: str = "") -> Manifest:
    """A folder with two files, and their manifest, not yet written."""
    folder = folder or f"{step}-{step:08x}"
    arrays = manifest.arrays(directory, folder)
    (arrays / "d").mkdir(parents=True)
    (directory / folder / "gmc_jax").touch()
    (arrays / "a").write_bytes(bytes([step]) * 5)
    (arrays / "d" / "b").write_bytes(b"")
    sizes = manifest.sizes(arrays)
    files = {
        name: [size, manifest.checksum(arrays / name)] for name, size in sizes.items()
    }
    leaves = [Leaf("state[0]", "float32", [2, 3], True)]
    return Manifest(step, folder, 4, leaves, {"ratio": 0.5}, {"seconds": 1}, files)


@pytest.fixture
def three(tmp_path) -> pathlib.Path:
    for step in (1, 20, 3):
        manifest.write(tmp_path, checkpoint(tmp_path, step))
    return tmp_path


def test_a_manifest_is_read_as_it_was_written(tmp_path):
    saved = checkpoint(tmp_path, 7)
    manifest.write(tmp_path, saved)
    assert manifest.read(tmp_path, 7) == saved
    assert manifest.parsed(json.loads(json.dumps(saved._asdict()))) == saved
    assert set(saved.files) == {"a", "d/b"}
    assert len(list(tmp_path.iterdir())) == 2


def test_any_changed_byte_of_a_manifest_is_found(tmp_path):
    manifest.write(tmp_path, checkpoint(tmp_path, 7))
    path = tmp_path / "7.json"
    written = path.read_bytes()
    for place, byte in enumerate(written):
        path.write_bytes(written[:place] + bytes([byte ^ 1]) + written[place + 1 :])
        with pytest.raises(ValueError, match=r"its manifest .*7.json` is damaged"):
            manifest.read(tmp_path, 7)
    for size in range(len(written)):
        path.write_bytes(written[:size])
        assert "is damaged" in manifest.find_damage(tmp_path, 7)


def test_the_newest_come_first_by_number(three):
    (three / "notes.json").touch()
    assert manifest.steps(three) == manifest.complete_steps(three) == [20, 3, 1]


@pytest.mark.parametrize("name", ["020", "٢٠", "²", "-3", "+3", "3 ", "1_0", ""])
def test_no_other_name_is_read_as_a_number(three, name):
    """Each of them made every save fail once it had saved, or counted twice."""
    (three / f"{name}.json").write_bytes((three / "20.json").read_bytes())
    assert manifest.steps(three) == [20, 3, 1]
    manifest.prune(three, 20, 1)
    assert manifest.steps(three) == [20]
    assert (three / f"{name}.json").exists()


@pytest.mark.parametrize("text", ["", "{", '{"gmc_jax": "check', '{"loss": 1}', "[]"])
def test_only_manifests_are_removed(three, text):
    """What ends too early may be ours, and give way to another; nobody knows."""
    (three / "2.json").write_text(text)
    manifest.prune(three, 20, 1)
    assert (three / "2.json").read_text() == text
    if text in '{"gmc_jax": "checkpoint"':
        manifest.write(three, checkpoint(three, 2))
        assert manifest.steps(three) == [20, 2]
    else:
        with (
            pytest.raises(ValueError, match=r"2.json` must be free .* `Checkpoints`"),
            manifest.new_folder(three, 2),
        ):
            pass


def test_leftovers_are_removed_before_writing(three):
    """The disk may be full of them."""
    (three / "5-0123abcd" / "arrays").mkdir(parents=True)
    (three / "5-0123abcd" / "gmc_jax").touch()
    with manifest.new_folder(three, 30) as name:
        assert not (three / "5-0123abcd").exists()
        assert list((three / name).iterdir()) == [three / name / "gmc_jax"]


def test_damage_is_named(three):
    assert manifest.find_damage(three, 3, thorough=True) == ""
    assert "manifest `" in manifest.find_damage(three, 4)
    assert manifest.find_damage(three, 4).endswith("is missing")
    file = manifest.arrays(three, manifest.read(three, 3).folder) / "a"
    file.write_bytes(b"other")
    assert manifest.find_damage(three, 3) == ""
    assert "/a` have changed" in manifest.find_damage(three, 3, thorough=True)
    file.write_bytes(b"longer")
    assert f"`{file}` has 6 bytes, but was saved with 5" in manifest.find_damage(
        three, 3
    )
    file.unlink()
    assert f"`{file}` is missing" in manifest.find_damage(three, 3)
    assert manifest.complete_steps(three) == [20, 1]


def test_a_manifest_is_of_the_step_of_its_name(three):
    (three / "1.json").rename(three / "5.json")
    assert "is damaged (it is of step 1)" in manifest.find_damage(three, 5)
    assert manifest.complete_steps(three) == [20, 3]


def test_an_unreadable_file_is_damage(three):
    saved = manifest.read(three, 3)
    assert manifest.checksum(three / "nothing") == -1
    assert manifest.checksum(three) == -1
    sums = [sum for _, sum in saved.files.values()]
    assert manifest.find_change(saved, sums) == ""
    assert "cannot be read" in manifest.find_change(saved, [-1, *sums[1:]])


def test_a_manifest_replaces_one_of_the_same_step(three):
    new = checkpoint(three, 3, folder="3-ffffffff")
    manifest.write(three, new)
    assert manifest.read(three, 3).folder == "3-ffffffff"
    manifest.clean(three)
    folders = {path.name for path in three.iterdir() if path.is_dir()}
    assert folders == {"1-00000001", "20-00000014", "3-ffffffff"}


@pytest.mark.parametrize(
    ("step", "keep", "left"), [(20, 2, [20, 3]), (3, 5, [3, 1]), (3, 1, [3])]
)
def test_the_newest_are_kept(three, step, keep, left):
    manifest.prune(three, step, keep)
    assert manifest.complete_steps(three) == left
    assert len([path for path in three.iterdir() if path.is_dir()]) == len(left)


def test_nothing_is_removed_if_the_newest_is_damaged(three):
    (manifest.arrays(three, manifest.read(three, 20).folder) / "a").unlink()
    manifest.prune(three, 20, 1)
    assert manifest.steps(three) == [20, 3, 1]


def test_the_files_of_a_damaged_manifest_are_not_removed(three):
    (three / "3.json").write_text("{")
    before = set(three.iterdir())
    manifest.clean(three)
    assert set(three.iterdir()) == before


def test_an_unreadable_manifest_is_not_ignored(three, monkeypatch):
    """A manifest without permission, or a moment of bad weather on a network disk.

    It was passed over, and its files were removed as nobody's; a directory that cannot
    be listed held no checkpoint, so that training began anew.
    """
    opened, listed = pathlib.Path.open, os.listdir

    def opening(path: pathlib.Path, *args: Any, **kwargs: Any) -> Any:
        if path.name == "3.json":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "open", opening)
        manifest.prune(three, 20, 1)
        assert manifest.steps(three) == [20, 3]
        assert "Permission denied" in manifest.find_damage(three, 3)
    assert manifest.complete_steps(three) == [20, 3]

    def listing(path: Any) -> list[str]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", listing)
    with pytest.raises(PermissionError):
        manifest.complete_steps(three)
    monkeypatch.setattr(os, "listdir", listed)
    assert manifest.complete_steps(three / "none") == []


@pytest.mark.parametrize("kind", [ValueError, OSError, KeyboardInterrupt])
def test_a_failure_after_the_manifest_removes_nothing(tmp_path, kind):
    """Over several processes all that fails is a ValueError: it took the folder."""

    def save_and_fail() -> None:
        with manifest.new_folder(tmp_path, 3) as name:
            manifest.write(tmp_path, checkpoint(tmp_path, 3, name))
            raise kind("while old ones are removed")

    with pytest.raises(kind):
        save_and_fail()
    assert manifest.complete_steps(tmp_path) == [3]


def test_one_writes_at_a_time(tmp_path):
    written = []

    def write() -> None:
        with manifest.only_writer(tmp_path):
            written.append("second")

    second = threading.Thread(target=write)
    with manifest.only_writer(tmp_path):
        second.start()
        second.join(0.1)
        written.append("first")
    second.join()
    assert written == ["first", "second"]
