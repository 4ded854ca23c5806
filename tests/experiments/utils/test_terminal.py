"""Output to ASCII terminals, full disks and closed pipes."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.__main__ import main
from experiments.utils import terminal

ROOT = Path(__file__).parents[3]
KEPT = ROOT / "experiments" / "results"


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("97.77% ±1.41", "97.77% +-1.41"),
        ("· … \N{EN DASH}", ". . -"),
        ("│─╭┼", "|-++"),
        ("André", "Andre"),
        ("w - ληe", "w - lambda*eta*e"),
        ("\N{SNOWMAN}", "?"),
    ],
)
def test_characters_that_an_encoding_lacks_have_a_plain_form(text, plain, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    with terminal.output():
        print(text, end="")
    assert raw.getvalue().decode() == plain


def test_a_name_that_is_no_utf_8_can_be_printed(monkeypatch):
    """File names come in as surrogates, which not even UTF-8 can write."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="utf-8"))
    with terminal.output():
        print("results\udcff ±")
    assert raw.getvalue().decode() == "results? ±\n"


class Full(io.RawIOBase):
    """A file on a full disk, until it is no longer."""

    full = True

    def writable(self):
        return True

    def write(self, data):
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return len(data)


def test_a_full_standard_output_is_one_line_and_no_traceback(monkeypatch):
    """The disk of the standard output fills up, or it is `/dev/full`."""
    monkeypatch.setattr(
        "experiments.commands.list.main", lambda options: print("something")
    )
    raw = Full()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(raw)))
    with pytest.raises(SystemExit, match=r"No space left.*standard output.*Free some"):
        main(["list"])
    raw.full = False  # Or it would complain once more when it is closed.


@pytest.mark.parametrize("unbuffered", [False, True])
def test_an_output_without_a_reader_prints_no_error(unbuffered, monkeypatch):
    """As in `| head -1`, which ends after one line."""
    monkeypatch.setattr(
        "experiments.commands.list.main", lambda options: print("something")
    )
    read, write = os.pipe()
    os.close(read)
    with (
        open(write, "wb", buffering=0 if unbuffered else -1) as raw,
        io.TextIOWrapper(raw, write_through=unbuffered) as stream,
    ):
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(SystemExit) as end:
            main(["list"])
    assert end.value.code == 1


@pytest.mark.parametrize("closed", [(1, 2), (0, 1, 2)])
def test_no_file_takes_the_number_of_a_closed_stream(closed, tmp_path):
    """With `>&- 2>&-` a log line of C++ went into the pipe of signals."""
    lines = (
        "import os",
        f"[os.close(number) for number in {closed}]",
        "import sys",
        "sys.stdout = sys.stderr = None",
        "from experiments.utils import signals, terminal",
        "terminal.open_streams()",
        "signals.end_at_once()",
        f"log = open({str(tmp_path / 'log')!r}, 'w')",
        "assert log.fileno() > 2",
        "os.write(2, b'logged')",
        "terminal.note('a word')",
        "os.spawnlp(os.P_WAIT, 'sh', 'sh', '-c', 'echo unheard >&2') and os._exit(1)",
        "import time; time.sleep(0.1)",
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=ROOT)
    assert done.returncode == 0
    assert not (tmp_path / "log").read_text()


def test_a_standard_output_that_is_closed_is_no_error(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with terminal.output():
        print("unheard")
        assert sys.stdout is not None
        sys.stdout.close()
        monkeypatch.setattr(sys, "stdout", io.StringIO())


def test_a_remark_to_a_closed_standard_error_is_dropped(monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    terminal.note("unheard")


ASCII = f"""
import sys
from experiments.__main__ import main
main(["--help"])
main(["list"])
for name in ("plan", "slowmo_digits", "theory", "network"):
    main(["table", "{KEPT}/" + name])
main(["plot", "{KEPT}/votes", "--output", sys.argv[1]])
main(["plan", "--workers", "many"])
"""


@pytest.mark.slow
def test_an_ascii_terminal_shows_every_command(tmp_path):
    """Output of rich, tyro and this project raised UnicodeEncodeError."""
    environment = {
        **{name: value for name, value in os.environ.items() if name[:2] != "PY"},
        **{"LC_ALL": "C", "PYTHONUTF8": "0", "TERM": "dumb", "COLUMNS": "60"},
    }
    done = subprocess.run(
        [sys.executable, "-c", ASCII, str(tmp_path / "é.png")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
    )
    shown, said = done.stdout.decode("ascii"), done.stderr.decode("ascii")
    assert done.returncode == 2, said
    assert "invalid literal for int()" in said
    assert "+-" in shown
    assert "drew" in shown
    assert (tmp_path / "é.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("command", [["list"], ["plan", "--help"]])
def test_a_shell_s_pipes_and_full_disks(command):
    """As those in this process, with the interpreter's own last flush."""
    words = " ".join([sys.executable, "-m", "experiments", *command])
    shell = ["bash", "-c", f"{words} > /dev/full; echo $?; {words} >&-; echo $?"]
    done = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["1", "0"]
    (line,) = done.stderr.splitlines()
    assert line.startswith("No space left on device")
