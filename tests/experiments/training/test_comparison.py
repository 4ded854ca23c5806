"""The command `run`: what it leaves behind, and how it resumes."""

import json
import signal
import subprocess
import time

import pytest

from experiments.__main__ import main
from experiments.training.record import LOG, read
from tests.support.stoppable import EXPERIMENTS

TINY = ("--method", "gmc", "--steps", "2", "--evaluations", "1", "--workers", "2")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = tmp_path_factory.mktemp("results")
    main(["run", "digits_quick", *TINY, "--ratio", "0.02", "--results", str(path)])
    return path


def test_a_run_leaves_a_log_and_a_figure_and_no_checkpoints(results):
    (path,) = results.iterdir()

    assert path.name == "digits_quick-001"
    assert {file.name for file in path.iterdir()} == {LOG, "figure.png", "models"}
    assert (path / "figure.png").read_bytes().startswith(b"\x89PNG")
    header = json.loads((path / LOG).read_text().splitlines()[0])
    assert header["config"]["ratio"] == 0.02
    assert header["config"]["workers"] == len(header["class_counts"]) == 2


def test_the_table_of_the_latest_run_is_printed(results, capsys):
    main(["table", "--results", str(results)])

    shown = capsys.readouterr().out
    assert "Samples of each class" in shown
    assert "digits_quick: mlp on digits, 2 workers, 2 steps" in shown
    assert "GMC" in shown


def test_a_figure_is_drawn_where_it_is_asked_for(results, tmp_path):
    output = tmp_path / "figure.svg"

    main(["plot", "--results", str(results), "--output", str(output)])

    assert "<svg" in output.read_text()


def test_results_are_where_checkpoints_can_be(tmp_path, monkeypatch):
    """It trained up to the first save; a `~` separated log and checkpoints."""
    command = ["run", "digits_quick", "--results"]
    with pytest.raises(SystemExit, match="a name that orbax can use"):
        main([*command, str(tmp_path / "a[lr=0.1]")])
    assert not list(tmp_path.rglob(LOG))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(SystemExit, match=rf"{tmp_path}/b\[c\]"):
        main([*command, "~/b[c]"])


def rows(path):
    return [row for row in read(path) if "method" in row]


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_run_is_continued_by_the_next_process(tmp_path, kill):
    run = ["run", "digits_quick", "--steps", "120", "--evaluations", "40"]
    command = [*EXPERIMENTS, *run]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen([*command, "--results", str(killed)])
    log = killed / "digits_quick-001" / LOG
    while process.poll() is None:
        if log.exists() and len(rows(log.parent)) > 60:  # 41 and a summary a method.
            process.send_signal(kill)
            process.wait()
        time.sleep(0.01)
    assert process.returncode != 0
    assert 60 < len(rows(log.parent)) < 84

    subprocess.run([*command, "--results", str(killed)], check=True)
    subprocess.run([*command, "--results", str(whole)], check=True)

    assert not (killed / "digits_quick-002").exists()
    ours, theirs = rows(log.parent), rows(whole / "digits_quick-001")
    for row in (*ours, *theirs):
        row.pop("seconds", None)
    assert ours == theirs
