"""Tests of the checkpoints in a directory: which are kept, replaced and removed."""

import os
import pathlib

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax import Checkpoints
from gmc_jax.checkpoints import manifest
from tests.support.checkpointing import same_bits, small


def test_a_step_is_saved_once_and_steps_ascend(two):
    directory, layout, state = two
    with Checkpoints(directory, layout) as checkpoints:
        for step in (50, 60):
            with pytest.raises(
                ValueError, match=rf"of step {step} or later .* holds one of step 60"
            ):
                checkpoints.save(step, state)
        checkpoints.restore(state)
        for step in (50, 60):
            with pytest.raises(ValueError, match="`step` must be later than 60"):
                checkpoints.save(step, state)
        checkpoints.save(61, state)
        with pytest.raises(ValueError, match="`step` must be later than 61"):
            checkpoints.save(61, state)
        with pytest.raises(ValueError, match="`step` must be a whole number"):
            checkpoints.save(-1, state)
        assert checkpoints.latest == 61


def test_later_checkpoints_are_removed_after_going_back(two):
    directory, layout, state = two
    with Checkpoints(directory, layout, keep=3) as checkpoints:
        checkpoints.restore(state, step=40)
        assert checkpoints.latest == 60
        checkpoints.save(50, state)
        assert manifest.steps(directory) == [50, 40]
        chex.assert_trees_all_equal(checkpoints.restore(state)[1], state)


def test_checkpoints_of_another_process_are_not_replaced(two):
    directory, layout, state = two
    ours, theirs = Checkpoints(directory, layout), Checkpoints(directory, layout)
    for checkpoints in (ours, theirs):
        checkpoints.restore(state)
    theirs.save(80, state)
    with pytest.raises(
        ValueError, match=r"of step 70 or later .* holds one of step 80"
    ):
        ours.save(70, state)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_are_kept_and_nothing_else_is_left(tmp_path, keep):
    layout, state = small()
    with Checkpoints(tmp_path, layout, keep=keep) as checkpoints:
        for step in range(5):
            checkpoints.save(step, state)
    assert manifest.steps(tmp_path) == list(range(4, 4 - keep, -1))
    assert len(list(tmp_path.iterdir())) == 2 * keep + 1  # And the lock.


@pytest.mark.parametrize("keep", [0, 1.5])
def test_at_least_one_is_kept(tmp_path, keep):
    with pytest.raises(ValueError, match="`keep` must be a whole number"):
        Checkpoints(tmp_path, small()[0], keep=keep)


def test_leftovers_are_removed_and_foreign_files_are_not(two):
    """Opening once removed others' folders named alike, and saving their 5.json."""
    directory, layout, state = two
    for name in ("70-0123abcd", "55-0123abcd"):
        (directory / name / "arrays.orbax-checkpoint-tmp").mkdir(parents=True)
        (directory / name / "gmc_jax").touch()
    ours = {directory / "70-0123abcd", directory / "55-0123abcd"}
    for name in ("12-3f2a9c1d", "20251129-20231145", "70-0123abcd.backup", "8.json"):
        (directory / name).mkdir()
        (directory / name / "precious").touch()
    (directory / "70-0123abcd.backup" / "gmc_jax").touch()
    (directory / "5-0123abcd").symlink_to(directory / "70-0123abcd.backup")
    names = ("000100.json", "٣.json", "².json", "-5.json", "5.json", "notes.txt")
    for name in (*names, "60-0123abcd.draft"):
        (directory / name).write_text('{"loss": 0.5}')
    (directory / "9.json").symlink_to("nowhere")
    os.mkfifo(directory / "11.json")
    before = set(directory.rglob("*"))
    with Checkpoints(directory, layout, keep=1) as checkpoints:
        assert checkpoints.latest == 60
        assert set(directory.rglob("*")) == before
        checkpoints.restore(state)
        for step in (61, 62):
            checkpoints.save(step, state)
        assert checkpoints.latest == 62
    gone = before - set(directory.rglob("*"))
    theirs = {path for path in gone if path not in ours and path.parent not in ours}
    assert ours < gone
    assert {path.name[:3] for path in theirs if path.parent == directory} == {
        "40-",
        "40.",
        "60-",
        "60.",
    }
    assert not any("precious" in path.name for path in gone)
    assert manifest.steps(directory) == [62]


@pytest.mark.parametrize("name", ["5.json", "8.json", "9.json"])
def test_a_foreign_file_is_not_replaced(tmp_path, name):
    layout, state = small()
    made = {
        "5.json": lambda path: path.write_text('{"loss": 0.5}'),
        "8.json": pathlib.Path.mkdir,
        "9.json": lambda path: path.symlink_to("nowhere"),
    }
    made[name](tmp_path / name)
    with Checkpoints(tmp_path, layout) as checkpoints:
        with pytest.raises(
            ValueError, match=rf"{name}` must be free for the manifest of step"
        ):
            checkpoints.save(int(name[0]), state)
        checkpoints.save(10, state)
        assert checkpoints.restore(state)[0] == 10
    assert os.path.lexists(tmp_path / name)
    assert len(list(tmp_path.iterdir())) == 4  # And nothing of what failed.


@pytest.mark.parametrize(
    "step", [True, 1.0, "3", None, np.float32(2), np.True_, np.arange(1), -1]
)
def test_nothing_is_written_unless_the_step_is_a_whole_number(tmp_path, step):
    """Once some were saved first, and failed then."""
    layout, state = small()
    with Checkpoints(tmp_path, layout) as checkpoints:
        for value in (np.int64(3), jnp.int32(4), np.array(5)):
            checkpoints.save(value, state)
            assert checkpoints.restore(state, step=value)[0] == int(value)
        before = set(tmp_path.rglob("*"))
        with pytest.raises(ValueError, match="`step` must be a whole number"):
            checkpoints.save(step, state)
        assert set(tmp_path.rglob("*")) == before
        if step is not None:
            with pytest.raises(ValueError, match="`step` must be a whole number"):
                checkpoints.restore(state, step=step)


def test_checkpoints_can_be_moved_and_read_only(tmp_path):
    """Restoring once needed to write a lock, and so a directory of its own."""
    layout, state = small()
    with Checkpoints(tmp_path / "a", layout) as checkpoints:
        assert checkpoints.latest is None
        assert not (tmp_path / "a").exists()
        checkpoints.save(1, state)
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "b" / "lock").unlink()
    before = {path: path.stat() for path in tmp_path.rglob("*")}
    for path in before:
        path.chmod(0o555 if path.is_dir() else 0o444)
    with Checkpoints(tmp_path / "b", layout) as checkpoints:
        assert checkpoints.latest == 1
        same_bits(checkpoints.restore(state)[1], state)
    assert before.keys() == set(tmp_path.rglob("*"))
    for path, was in before.items():
        assert path.stat().st_mtime_ns == was.st_mtime_ns
        path.chmod(was.st_mode)


def test_an_unusable_directory_is_refused_at_once():
    """And not when the first state is saved."""
    for directory in ("gs://bucket/run", "~no-such-user", "run[lr=0.1]", "a\\b"):
        with pytest.raises(ValueError, match="`directory` "):
            Checkpoints(directory, small()[0])
