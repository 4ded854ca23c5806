"""Errors that are printed in one line, and errors that keep their traceback."""

import errno
import json
import os
import sys
from unittest.mock import Mock

import pytest

from experiments.__main__ import main
from experiments.utils import failures, terminal


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, r"No space left on device \(log\)\. Free some space"),
        (errno.EACCES, r"Permission denied \(log\)\. .*another place"),
        (errno.EROFS, r"Read-only file system \(log\)\. .*another place"),
        (errno.EISDIR, r"Is a directory \(log\)\. Name a file"),
        (errno.ENOTDIR, r"Not a directory \(log\)\. Name a directory"),
        (errno.ENOENT, r"No such file or directory \(log\)\. Name one that exists"),
        (errno.ENAMETOOLONG, r"File name too long \(log\)\. Name a shorter"),
    ],
)
def test_an_error_of_the_machine_is_one_line(number, remedy, monkeypatch):
    """A full disk, or a place that is read-only, unreadable or missing."""

    def fail(options):
        raise OSError(number, os.strerror(number), "log")

    monkeypatch.setattr("experiments.commands.list.main", fail)
    with pytest.raises(SystemExit, match=remedy):
        main(["list"])


def test_a_full_disk_under_a_checkpoint_is_one_line(monkeypatch):
    """TensorStore, under orbax, turns errors of the machine into text."""

    def fail(options):
        json.loads("")  # A ValueError of others keeps its traceback.

    monkeypatch.setattr("experiments.commands.list.main", fail)
    words = (
        'RESOURCE_EXHAUSTED: Error writing "13/0.0" at local file "/r/d/": Failed to '
        "write 58 bytes to file 19: No space left on device [os_error_code='28']"
    )
    monkeypatch.setattr(json, "loads", Mock(side_effect=ValueError(words)))
    with pytest.raises(SystemExit, match=r"No space left on device \(/r/d/\)\. Free"):
        main(["list"])


@pytest.mark.parametrize(
    "error", [KeyError("x"), TypeError("x"), OSError(errno.EBADF, "x"), OSError("x")]
)
def test_a_bug_keeps_its_traceback(error, monkeypatch):
    def fail(options):
        raise error

    monkeypatch.setattr("experiments.commands.list.main", fail)
    with pytest.raises(type(error)):
        main(["list"])


def test_a_broken_pipe_that_is_not_the_output_keeps_its_traceback(monkeypatch):
    def fail(options):
        raise BrokenPipeError(errno.EPIPE, "of a process")

    monkeypatch.setattr("experiments.commands.list.main", fail)
    with pytest.raises(BrokenPipeError):
        main(["list"])


def test_a_file_is_named_where_the_machine_names_none(tmp_path):
    with (
        pytest.raises(OSError, match=r"No space.*log\.jsonl"),
        failures.naming(tmp_path / "log.jsonl"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="other"), failures.naming(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device", "other")


def test_a_remark_goes_to_the_standard_error(capsys):
    terminal.note("words")
    assert capsys.readouterr() == ("", "words\n")


def test_a_remark_that_cannot_be_written_is_no_error(monkeypatch):
    """With `2>/dev/full` a remark about one log ended a command."""
    full = Mock(write=Mock(side_effect=OSError(errno.ENOSPC, "full")))
    monkeypatch.setattr("sys.stderr", full)
    terminal.note("words")
    assert full.write.called


def test_threads_of_orbax_do_not_report_a_failure_again(monkeypatch):
    """On a full disk TensorStore printed tracebacks before the line."""
    said = Mock()
    monkeypatch.setattr("sys.unraisablehook", None)
    monkeypatch.setattr("sys.__unraisablehook__", said)
    failures.hush_threads()
    sys.unraisablehook(Mock(exc_value=RuntimeError("Event loop is closed")))
    assert not said.called
    sys.unraisablehook(Mock(exc_value=RuntimeError("another")))
    assert said.called
