"""Signals end a command at once, with a true last line."""

import os
import pty
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from experiments.training.record import CHECKPOINTS, LOG, read
from experiments.utils import signals
from tests.support.stoppable import EXPERIMENTS

ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
PATIENCE = 300  # Seconds; a machine may be busy.


def program(*lines: str) -> subprocess.Popen:
    """Starts a process that runs some lines and prints that it is ready."""
    # In a shell's background, processes start with SIGINT ignored, and so do theirs.
    heard = "[signal.signal(n, signal.SIG_DFL) for n in (1, 2, 15)]"
    start = (
        "import os, signal, sys, time",
        "from experiments.utils import signals",
        heard,
    )
    process = subprocess.Popen(
        [sys.executable, "-uc", "\n".join((*start, *lines))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_ends_a_command_that_swallows_exceptions(number):
    """KeyboardInterrupt got lost in callbacks of JAX, or became a traceback."""
    process = program(
        "signals.end_at_once()",
        "print('ready')",
        "while True:",
        "    try: time.sleep(0.01)",
        "    except BaseException: print('swallowed')",
    )
    process.send_signal(number)
    out, words = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    how = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
    assert (out, words) == ("", f"{how}; nothing kept\n")


def test_a_second_signal_does_not_wait_for_the_last_line():
    process = program(
        "signals.kept = lambda: print('looks') or time.sleep(1000)",
        "signals.end_at_once()",
        "print('ready')",
        "while True: time.sleep(1)",
    )
    process.send_signal(signal.SIGINT)
    assert process.stdout
    assert process.stdout.readline() == "looks\n"
    process.send_signal(signal.SIGTERM)
    _, words = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGTERM
    assert not words


def test_signals_that_are_ignored_stay_ignored():
    """As `nohup` and a shell's background want it."""
    process = program(
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)",
        "signals.end_at_once()",
        "os.kill(os.getpid(), signal.SIGHUP)",
        "print('ready')",
        "time.sleep(0.2)",
    )
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


def test_a_temporary_directory_is_removed_with_the_command():
    process = program(
        "signals.end_at_once()",
        "with signals.temporary_directory() as directory:",
        "    print('ready')",
        "    print(directory)",
        "    while True: time.sleep(1)",
    )
    assert process.stdout
    directory = process.stdout.readline().strip()
    assert os.path.isdir(directory)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    assert not os.path.exists(directory)


def test_unwinding_raises_and_a_second_signal_ends_the_process():
    process = program(
        "signals.end_at_once()",
        "signals.unwind()",
        "try:",
        "    print('ready')",
        "    while True: time.sleep(1)",
        "except KeyboardInterrupt as end:",
        "    print('takes away', end.number)",
        "    while True: time.sleep(1)",
    )
    process.send_signal(signal.SIGTERM)
    assert process.stdout
    assert process.stdout.readline() == "takes away 15\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGINT


def test_a_signal_that_a_callback_swallows_ends_a_wait():
    """JAX has callbacks of the garbage collector, in which exceptions get lost."""
    process = program(
        "from experiments.hosts.processes import Command, python, started",
        "signals.unwind()",
        "sleeper = Command(python('-c', 'import time; time.sleep(1000)'))",
        "with started([sleeper]) as all:",
        "    try:",
        "        print('ready')",
        "        while True: time.sleep(0.01)",
        "    except KeyboardInterrupt: pass",
        "    all.wait()",
    )
    process.send_signal(signal.SIGTERM)
    _, words = process.communicate(timeout=PATIENCE)
    assert "Ended" in words


def test_a_terminal_gets_its_cursor_back():
    """Progress bars hide it, and a killed process does not restore it."""
    screen, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    line = "from experiments.utils import signals; signals.say('the last')"
    subprocess.run([sys.executable, "-c", line], stdout=terminal, env=environment)
    os.close(terminal)
    assert b"\x1b[?25h" in os.read(screen, 100)
    os.close(screen)


def test_a_parent_gets_the_directory_of_the_record(tmp_path, monkeypatch):
    monkeypatch.setenv(signals.RECORD, str(tmp_path / "note"))
    signals.recording(tmp_path, str)
    signals.forget()
    assert (tmp_path / "note").read_text() == str(tmp_path)


def running(results) -> subprocess.Popen:
    """Starts a run that saves all the time."""
    return subprocess.Popen(
        [
            *(*EXPERIMENTS, "run", "digits_quick"),
            *("--method", "gmc", "--steps", "4000", "--evaluations", "4000"),
            *("--results", str(results)),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_a_run_that_is_interrupted_early_ends_with_one_line(tmp_path, seed):
    """It hung, or ended in SIGSEGV, SIGABRT or a traceback."""
    with running(tmp_path) as process:
        time.sleep(0.5 + 6 * random.Random(seed).random())
        process.send_signal(signal.SIGINT)
        _, words = process.communicate(timeout=PATIENCE)
    if process.returncode != -signal.SIGINT:  # Python's own, while it starts.
        assert process.returncode == 130
        assert re.fullmatch(r"interrupted; .*\n", words)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_run_interrupted_while_it_saves_names_what_is_kept(tmp_path, seed):
    """Threads of orbax printed tracebacks, and the step in the line was wrong."""
    draws = random.Random(seed)
    path = tmp_path / "digits_quick-001"
    folder = path / CHECKPOINTS / "gmc-0"

    def saving() -> bool:
        names = set(os.listdir(folder)) if folder.is_dir() else set()
        steps = {name.partition("-")[0] for name in names if "-" in name}
        return any(int(at) > 2 and f"{at}.json" not in names for at in steps)

    with running(tmp_path) as process:
        while not saving():
            assert process.poll() is None
            time.sleep(0.001)
        time.sleep(0.03 * draws.random())
        process.send_signal(signal.SIGINT)
        _, words = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    said = re.fullmatch(
        rf"interrupted; kept in {path}: gmc-0 at step (\d+)\. .*\n", words
    )
    assert said, words
    assert (folder / f"{said[1]}.json").exists()
    assert read(path)[-1]["step"] >= int(said[1])
    assert (path / LOG).exists()
