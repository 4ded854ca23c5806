"""Which errors are one line, and which keep their traceback."""

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
def test_what_the_machine_refuses_is_one_line(number, remedy, monkeypatch):
    """The kind: a full disk or a read-only, unreadable, missing place, anywhere."""

    def fail(options):
        raise OSError(number, os.strerror(number), "log")

    monkeypatch.setattr("experiments.commands.list.main", fail)
    with pytest.raises(SystemExit, match=remedy):
        main(["list"])


def test_a_full_disk_under_a_checkpoint_is_one_line(monkeypatch):
    """TensorStore, under orbax, hands the machine's errors on as text."""

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
def test_a_fault_of_the_program_keeps_its_traceback(error, monkeypatch):
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


def test_a_note_goes_to_the_standard_error(capsys):
    terminal.note("words")
    assert capsys.readouterr() == ("", "words\n")


def test_a_note_that_nobody_hears_ends_nothing(monkeypatch):
    """The kind: `2>/dev/full`, where a word about one log ended a command."""
    full = Mock(write=Mock(side_effect=OSError(errno.ENOSPC, "full")))
    monkeypatch.setattr("sys.stderr", full)
    terminal.note("words")
    assert full.write.called


def test_what_fails_is_not_said_by_threads_of_orbax_as_well(monkeypatch):
    """The kind: a full disk, with tracebacks of TensorStore before the line."""
    said = Mock()
    monkeypatch.setattr("sys.unraisablehook", None)
    monkeypatch.setattr("sys.__unraisablehook__", said)
    failures.hush_threads()
    sys.unraisablehook(Mock(exc_value=RuntimeError("Event loop is closed")))
    assert not said.called
    sys.unraisablehook(Mock(exc_value=RuntimeError("another")))
    assert said.called
