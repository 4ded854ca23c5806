"""Processes that run together: their results, and how they end."""

import contextlib
import os
import pathlib
import signal
import time

import numpy as np
import pytest

from experiments.__main__ import main
from experiments.hosts import launch
from experiments.hosts.member import _describe
from experiments.hosts.options import Join
from experiments.hosts.processes import Command, ProcessFailed, python, started
from experiments.training.record import read
from experiments.utils import signals
from gmc_jax.checkpoints import manifest

SIX = ("gmc", "gmc_plus", "cser", "slowmo", "signum", "sgp")
"""GMC and GMC+, error reset, a slow momentum, majority vote, a push-sum."""


def run(*lines: str) -> Command:
    """A process that runs some Python."""
    return Command(python("-c", "\n".join(("import os, sys, time", *lines))))


def test_processes_that_succeed_raise_nothing():
    with started([run("pass"), run("print('x', file=sys.stderr)")]) as group:
        group.wait()
        assert group.output(1) == "x"


def test_a_failing_process_ends_all_and_its_error_is_shown_once():
    began = time.monotonic()
    with (
        started([run("time.sleep(60)"), run("raise ValueError('too large')")]) as group,
        pytest.raises(ProcessFailed, match=r"process 1 of 2 ended .* 1,") as caught,
    ):
        group.wait()
    assert time.monotonic() - began < 30
    assert str(caught.value).count("Traceback") == 1
    assert str(caught.value).endswith("ValueError: too large")
    assert [process.poll() for process in group.running] == [-signal.SIGKILL, 1]


def test_the_first_process_that_fails_is_reported(tmp_path):
    """Not a process with a lower index that failed because of the first."""
    sign = str(tmp_path / "sign")
    second = run(
        f"while not os.path.exists({sign!r}): time.sleep(0.01)",
        "time.sleep(0.2)",
        "sys.exit('lost the other')",
    )
    first = run(
        "print('my own fault', file=sys.stderr, flush=True)",
        f"open({sign!r}, 'w')",
        "sys.exit(3)",
    )
    with started([second, first]) as group:
        for process in group.running:
            process.wait()
        with pytest.raises(ProcessFailed, match=r"process 1 .* 3, .*\nmy own"):
            group.wait()


def test_a_process_that_is_killed_is_reported():
    complaint = run("print('lost', file=sys.stderr)", "sys.exit(1)")
    with started([complaint, run("time.sleep(60)")]) as group:
        os.kill(group.running[1].pid, signal.SIGKILL)
        for process in group.running:
            process.wait()
        with pytest.raises(ProcessFailed, match="process 1 of 2 was killed by SIGKILL"):
            group.wait()


def test_the_end_of_the_block_kills_processes_and_their_children(tmp_path):
    pids = tmp_path / "pids"
    nested = run(
        "import subprocess",
        "child = subprocess.Popen(['sleep', '60'])",
        f"open({str(pids)!r}, 'w').write(f'{{child.pid}} ')",
        "time.sleep(60)",
    )
    with contextlib.suppress(KeyboardInterrupt), started([nested]) as group:
        while not pids.exists() or not pids.read_text().endswith(" "):
            time.sleep(0.05)
        raise KeyboardInterrupt
    assert group.running[0].poll() == -signal.SIGKILL
    assert _ends(int(pids.read_text()))


def test_waiting_has_a_limit():
    with (
        started([run("time.sleep(60)")]) as group,
        pytest.raises(TimeoutError, match=r"still ran after 0\.1 s"),
    ):
        group.wait(seconds=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hosts": 2, "host": 0}, "`coordinator` is missing"),
        ({"coordinator": "a:1", "hosts": 2, "host": 2}, "`host` must be in 0 to 1"),
        ({"heartbeat": 0}, "`heartbeat`"),
    ],
)
def test_incomplete_options_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        Join(**options)


def test_a_child_whose_parent_has_ended_does_not_start():
    lines = [
        "from experiments.hosts.member import _end_with_parent",
        "_end_with_parent()",
        "print('still here', file=sys.stderr)",
    ]
    orphan = run(*lines)._replace(environment={"GMC_JAX_PARENT": "1"})
    with started([orphan]) as group, pytest.raises(ProcessFailed, match="status 1"):
        group.wait()
    child = run(*lines)._replace(environment=launch.environment(0, 1))
    with started([child]) as group:
        group.wait()
        assert group.output(0) == "still here"


@pytest.mark.parametrize(
    "words",
    [
        "UNKNOWN: Gloo all-reduce failed: [pair.cc:538] Read error: Connection reset",
        "UNKNOWN: Gloo AllGather failed: Connection closed by peer",
        "UNAVAILABLE: Failed to send RPC to coordination service.",
    ],
)
def test_a_failed_collective_is_reported_as_a_lost_process(words):
    """A failed `all-reduce` was printed with a traceback."""
    first, last = _describe(ValueError(f"{words}\nmore")).splitlines()
    assert first == words
    assert last.startswith("process 0 of 1 has lost another process")


def test_output_of_processes_is_passed_on(capfd):
    from_process = run("print('a warning', file=sys.stderr)")
    with started([from_process]) as group:
        group.wait(on_output=signals.write)
    assert capfd.readouterr().err == "a warning\n"


def test_a_parent_gets_the_directory_of_the_record(tmp_path):
    """Only process 0 had it; `launch` printed that nothing was kept."""
    signals.forget()
    lines = (
        "from experiments.utils import signals",
        f"signals.recording({str(tmp_path)!r}, str)",
    )
    with started([run(*lines)]) as group:
        group.wait()
    (tmp_path / "checkpoints" / "gmc-0").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(manifest, "complete_steps", lambda folder: [7])
        assert signals.kept().startswith(f"kept in {tmp_path}: gmc-0 at step 7.")
    signals.forget()


@pytest.mark.parametrize(
    ("code", "status"), [(3, 3), (-signal.SIGTERM, 143), (-signal.SIGKILL, 137)]
)
def test_a_failure_has_the_status_that_a_shell_gives_it(code, status):
    assert ProcessFailed(0, 2, code, "").status == status


def trained(results: pathlib.Path) -> dict[str, np.ndarray]:
    """The models of the newest run."""
    path = max(results.iterdir(), key=lambda run: run.name)
    models = sorted((path / "models").iterdir())
    return {
        f"{model.stem}/{name}": leaf
        for model in models
        for name, leaf in np.load(model).items()
    }


@pytest.mark.slow
def test_four_hosts_of_two_workers_train_as_simulated_ones_do(tmp_path, capfd):
    options = (
        *("--methods", *SIX, "--learning-rates", "signum", "1e-4"),
        *("--steps", "24", "--evaluations", "2", "--results", str(tmp_path)),
    )
    main(["run", "digits_quick", *options, "--workers", "8"])
    simulated = trained(tmp_path)
    capfd.readouterr()
    started_by = ["--hosts", "4", "--devices-per-host", "2"]
    main(["launch", *started_by, "run", "digits_quick", *options])
    shown = capfd.readouterr().out
    assert shown.count("Log, figure and models") == 1
    assert "Gloo" not in shown
    assert len(list(tmp_path.iterdir())) == 2
    spread = trained(tmp_path)
    assert spread.keys() == simulated.keys()
    for name, leaf in simulated.items():
        # Rounding decides between entries of the same size, and signs of nothing.
        apart = np.abs(spread[name] - leaf) > 1e-4 * np.abs(leaf) + 1e-6
        assert np.mean(apart) <= 2e-3, name
        np.testing.assert_allclose(spread[name], leaf, rtol=1e-3, atol=5e-4)
    simulated_rows, rows = (read(path) for path in sorted(tmp_path.iterdir()))
    assert [row["kind"] for row in rows] == [row["kind"] for row in simulated_rows]
    assert rows[0]["environment"]["processes"] == 4
    accuracies = [log[-1]["accuracy"] for log in (rows, simulated_rows)]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=2e-3)


def _ends(pid: int) -> bool:
    """Whether a process ends soon."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        with open(f"/proc/{pid}/stat") as stat:
            if stat.read().rpartition(")")[2].split()[0] == "Z":
                return True
        time.sleep(0.05)
    return False
