"""Processes that are killed at any moment: no hang, and nothing lost but time."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments.hosts import launch
from experiments.record import CHECKPOINTS, LOG

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc"),
]

EXPERIMENTS = (sys.executable, "-m", "experiments")
METHODS = ("--methods", "gmc", "slowmo", "--compressor", "sampled_top_k")
RUN = ("run", "digits_quick", *METHODS, "--steps", "60", "--evaluations", "20")
ENDS_WITHIN = 60  # Seconds.
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


@pytest.mark.parametrize("victim", [0, 1])
def test_hosts_that_nobody_watches_end_when_one_is_killed(tmp_path, victim):
    """Process 0, with whom the others register, or another one."""
    address = f"localhost:{launch.free_port()}"
    steps = ("run", "digits_quick", "--method", "gmc", "--epochs", "100000")
    started = [
        subprocess.Popen(
            [
                *(*EXPERIMENTS, "join", "--coordinator", address, "--hosts", "2"),
                *("--host", str(host), *steps, "--results", str(tmp_path)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for host in range(2)
    ]
    try:
        log = tmp_path / "digits_quick-001" / LOG
        while not log.exists() or '"evaluation"' not in log.read_text():
            assert [process.poll() for process in started] == [None, None]
            time.sleep(0.1)
        time.sleep(1)
        started[victim].kill()
        _, words = started[1 - victim].communicate(timeout=ENDS_WITHIN)
        assert started[1 - victim].returncode
        assert "another" in words, words
    finally:
        for process in started:
            process.kill()
            process.communicate()
