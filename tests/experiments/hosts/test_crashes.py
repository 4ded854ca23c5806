"""Processes that are killed at any moment: no hang, and no result is lost."""

import contextlib
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np
import pytest

from experiments.hosts.preflight import free_port
from experiments.training.record import CHECKPOINTS, LOG
from tests.support.stoppable import EXPERIMENTS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc"),
]

METHODS = ("--methods", "gmc", "slowmo", "--compressor", "sampled_top_k")
RUN = ("run", "digits_quick", *METHODS, "--steps", "60", "--evaluations", "20")
ENDS_WITHIN = 300  # Seconds; a machine may be busy.
KILLS = int(os.environ.get("KILLS") or 2)
"""How often a run is killed; `KILLS=20` for a longer test."""


def launched(results: pathlib.Path) -> subprocess.Popen:
    hosts = ("launch", "--hosts", "2", *RUN, "--results", str(results))
    return subprocess.Popen(
        [*EXPERIMENTS, *hosts],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def children(pid: int) -> list[int]:
    path = pathlib.Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def models(results: pathlib.Path) -> dict[str, np.ndarray]:
    (path,) = results.iterdir()
    return {
        f"{file.stem}/{name}": leaf
        for file in sorted((path / "models").glob("*.npz"))
        for name, leaf in np.load(file).items()
    }


def test_kills_change_no_bit(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    began = time.monotonic()
    with launched(whole) as process:
        assert process.wait() == 0
    usual = time.monotonic() - began
    moments = random.Random(0)
    kills = 0
    while kills < KILLS:
        with launched(killed) as process:
            time.sleep(moments.uniform(0.1, 0.9) * usual)
            running = children(process.pid)
            if process.poll() is None and running:
                os.kill(moments.choice(running), signal.SIGKILL)
                began = time.monotonic()
                _, words = process.communicate(timeout=ENDS_WITHIN)
                print(f"killed {kills}: ended {time.monotonic() - began:.1f} s later")
                if process.returncode:
                    assert "was killed by SIGKILL, and the others" in words
                    kills += 1
        assert not (killed / "digits_quick-002").exists(), "it was not taken up again"
        run = killed / "digits_quick-001"
        if (run / "figure.png").exists() and not (run / CHECKPOINTS).exists():
            # It was done already; the next one starts another.
            _compare(killed, whole)
            run.rename(tmp_path / f"done-{kills}")
    with launched(killed) as process:
        assert process.wait() == 0
    _compare(killed, whole)


def _compare(killed: pathlib.Path, whole: pathlib.Path) -> None:
    expected, found = models(whole), models(killed)
    assert len(expected) == 12
    assert found.keys() == expected.keys()
    for name, leaf in expected.items():
        np.testing.assert_array_equal(found[name], leaf)
    logs = [next(results.iterdir()) / LOG for results in (killed, whole)]
    ends = [log.read_text().count('"summary"') for log in logs]
    assert ends == [2, 2]


ENDLESS = ("run", "digits_quick", "--method", "gmc", "--epochs", "100000")
STEP_0 = pathlib.Path("digits_quick-001", CHECKPOINTS, "gmc-0", "0.json")
KEPT = r"kept in \S+: gmc-0 at step 0\. The same command goes on there\."


@contextlib.contextmanager
def endless(results: pathlib.Path, *commands: Sequence[str]):
    """Processes of a run without an end, once it has its first checkpoint."""
    running = [
        subprocess.Popen(
            [*EXPERIMENTS, *words, *ENDLESS, "--results", str(results)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for words in commands
    ]
    try:
        while not (results / STEP_0).exists():
            assert all(process.poll() is None for process in running)
            time.sleep(0.1)
        yield running
    finally:
        for process in running:
            process.kill()
            process.communicate()


def joins(host: int, port: int) -> list[str]:
    hosts = ["--coordinator", f"localhost:{port}", "--hosts", "2", "--host", str(host)]
    return ["join", *hosts, "--heartbeat", "10"]


def last_words(process: subprocess.Popen) -> list[str]:
    _, words = process.communicate(timeout=ENDS_WITHIN)
    return words.splitlines()


def gone(pid: int) -> bool:
    stat = pathlib.Path(f"/proc/{pid}/stat")
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return stat.read_text().rpartition(")")[2].split()[0] == "Z"
    return True


@pytest.mark.parametrize(
    ("name", "victim"), [("SIGKILL", 0), ("SIGKILL", 1), ("SIGTERM", 1), ("SIGSTOP", 1)]
)
def test_a_process_that_lost_another_one_reports_it_last(tmp_path, name, victim):
    """JAX swallowed SIGTERM, and its errors ended in a C++ stack trace."""
    port = free_port()
    with endless(tmp_path, joins(0, port), joins(1, port)) as running:
        (pid,) = children(running[victim].pid)
        os.kill(pid, getattr(signal, name))
        *_, cause, kept = last_words(running[1 - victim])
        assert re.search("stopped responding|has lost another process", cause), cause
        assert re.fullmatch(KEPT, kept)
        assert running[1 - victim].returncode
        if name != "SIGSTOP":
            *_, how, kept = last_words(running[victim])
            assert how == f"the process was killed by {name}."
            assert re.fullmatch(KEPT, kept)
            assert running[victim].returncode == 128 + getattr(signal, name)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_a_process_ends_with_its_parent(tmp_path, name):
    port = free_port()
    with endless(tmp_path, joins(0, port), joins(1, port)) as running:
        (pid,) = children(running[1].pid)
        running[1].send_signal(getattr(signal, name))
        words = last_words(running[1])
        if name == "SIGTERM":
            assert running[1].returncode == 128 + signal.SIGTERM
            assert re.fullmatch(f"ended by SIGTERM; {KEPT}", words[-1])
        *_, cause, _ = last_words(running[0])
        assert re.search("stopped responding|has lost another process", cause), cause
        assert gone(pid)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"])
def test_launched_processes_end_with_their_launcher(tmp_path, name):
    """Ctrl-C printed that nothing is kept, although there was a checkpoint."""
    with endless(tmp_path, ["launch", "--hosts", "2"]) as (process,):
        pids = children(process.pid)
        number = getattr(signal, name)
        process.send_signal(number)
        words = last_words(process)
        if name != "SIGKILL":
            how = "interrupted" if name == "SIGINT" else f"ended by {name}"
            assert process.returncode == 128 + number
            (line,) = words
            assert re.fullmatch(f"{how}; {KEPT}", line)
        while not all(map(gone, pids)):
            time.sleep(0.1)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGSEGV"])
def test_a_launched_process_that_is_killed_is_named(tmp_path, name):
    with endless(tmp_path, ["launch", "--hosts", "2"]) as (process,):
        os.kill(children(process.pid)[1], getattr(signal, name))
        *_, who, kept = last_words(process)
        assert process.returncode == 128 + getattr(signal, name)
        how = f"was killed by {name}, and the others were stopped."
        assert who == f"process 1 of 2 {how}"
        assert re.fullmatch(KEPT, kept)


def test_processes_that_do_not_find_each_other_report_it_last(tmp_path):
    options = ["--patience", "1", *ENDLESS, "--results", str(tmp_path)]
    alone = subprocess.run(
        [*EXPERIMENTS, *joins(0, free_port()), *options], capture_output=True, text=True
    )
    assert alone.returncode
    assert "did not find each other in time" in alone.stderr.splitlines()[-1]
