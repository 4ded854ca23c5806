"""Tests of where checkpoints can be."""

import os
import pathlib
from typing import Any

import pytest

from gmc_jax.checkpoints._directories import path_of, usable_path


@pytest.mark.parametrize(
    "url", ["gs://bucket/run", "s3://bucket", "file:///tmp/run", "gs:/bucket", "az:/b"]
)
def test_a_url_is_no_directory(url):
    """Once a folder of that name was made here, and the first save failed."""
    for directory in (url, pathlib.Path(url)):
        with pytest.raises(ValueError, match=r"got the URL `.*Mount the bucket"):
            usable_path(path_of(directory))


@pytest.mark.parametrize(
    "name", ["run[lr=0.1]", "[a]", "[!a]", "a\\b", "\\", "\udcff", "x/[0]/y"]
)
def test_a_name_that_orbax_cannot_use_is_refused(tmp_path, name):
    """It was saved to, listed as the latest, and could never be restored."""
    with pytest.raises(ValueError, match=r"`directory` must have a name that orbax"):
        usable_path(path_of(tmp_path / name))


def test_home_must_exist(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert usable_path("~/run") == str(tmp_path / "run")
    assert usable_path("~") == str(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert usable_path("./~nobody") == str(tmp_path / "~nobody")
    with pytest.raises(ValueError, match=r"existing home .*, got `~no-such-user/a`"):
        usable_path("~no-such-user/a")


def test_a_directory_must_be_a_folder(tmp_path):
    (tmp_path / "file").touch()
    for name in ("file", "file/a/b"):
        with pytest.raises(ValueError, match=r"but `.*/file` is a file"):
            usable_path(str(tmp_path / name))
    with pytest.raises(ValueError, match="`directory` must not be empty"):
        usable_path("")
    for wrong in (None, 3):
        given: Any = wrong
        with pytest.raises(TypeError, match=f"must be a path, got {given!r}"):
            path_of(given)


def test_links_and_parents_are_resolved_as_by_the_system(tmp_path, monkeypatch):
    """Orbax would resolve `..` by name alone."""
    (tmp_path / "far" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "inner")
    monkeypatch.chdir(tmp_path)
    assert usable_path("link/../run") == str(tmp_path / "far" / "run")
    assert usable_path(".") == str(tmp_path)
    (tmp_path / "run[1]").symlink_to(tmp_path / "far")
    assert usable_path("run[1]") == str(tmp_path / "far")
    assert not (tmp_path / "far" / "run").exists()


def test_a_missing_permission_is_named(tmp_path, monkeypatch):
    """Root may do everything, so the system's answer is given here."""
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    assert usable_path(str(tmp_path)) == str(tmp_path)
    with pytest.raises(ValueError, match=rf"which cannot be made in `{tmp_path}`"):
        usable_path(str(tmp_path / "a"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ValueError, match="which cannot be read: no permission"):
        usable_path(str(tmp_path))


def test_an_impossible_name_is_refused(tmp_path):
    """Of zero bytes, too long, in a circle: errors of the system that name nothing."""
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for name in ("a\0b", "a" * 256, "a/" * 5000, "a", "a/run"):
        with pytest.raises(ValueError, match=r"`directory` must be a path that the sy"):
            usable_path(path_of(tmp_path / name))


def test_an_inaccessible_directory_is_refused(tmp_path, monkeypatch):
    def deny(path: pathlib.Path) -> os.stat_result:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "stat", deny)
        with pytest.raises(ValueError, match=r"`directory` must be.*Permission denied"):
            usable_path(str(tmp_path / "a"))
