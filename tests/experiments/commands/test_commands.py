"""The command line, in this process."""

import json
import re
import signal
import subprocess
import time

import jax
import pytest

from experiments.__main__ import main
from experiments.commands import COMMANDS
from experiments.training import backends, record
from experiments.training.record import CHECKPOINTS, LOG, read
from experiments.utils import signals
from gmc_jax.checkpoints import manifest
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


def test_all_commands_are_listed(capsys):
    main(["--help"])

    shown = capsys.readouterr().out
    assert all(command in shown for command in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rum"], "no command 'rum'; the commands are run, list"),
        (["run", "digit"], "no run 'digit'. The named runs are d2_digits"),
        (["run", "digits", "--alpha", "-1"], "`alpha` .* but is -1"),
        (["run", "digits", "--backend", "pmap", "--workers", "9"], "`workers` is 9"),
        (["table", "--results", "/nowhere"], "no results in /nowhere"),
        (["table", "5"], "tables of the paper are 1, 2, 3, 4, and there is no 5"),
        (["table", "/nowhere"], "no run in /nowhere"),
        (["plot", "/nowhere"], "no run in /nowhere"),
        (["run", "digits", "--results", "/dev/null"], "`results` is '/dev/null'"),
    ],
)
def test_an_error_of_ours_is_a_message_without_a_traceback(arguments, message):
    assert len(jax.devices()) == 8  # Once JAX has started, a ninth cannot be had.
    with pytest.raises(SystemExit, match=message):
        main(arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "digits", "--method", "sgd"], "`methods` names 'sgd'"),
        (["theory", "--seeds", "0"], "`seeds` counts something"),
        (["quadratic", "--steps", "0"], "`steps` counts something"),
        (["bench", "compress", "--d", "-5"], "`d` counts something"),
        (["bench", "simulate", "--repeats", "0"], "`repeats` counts something"),
    ],
)
def test_an_option_that_makes_no_sense_is_an_error(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(arguments)

    assert message in capsys.readouterr().err


def test_an_error_of_others_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(
        "experiments.commands.plot.main", lambda options: json.loads("{")
    )

    with pytest.raises(json.JSONDecodeError):
        main(["plot"])


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("run", "goes on there"),
        ("launch", "goes on there"),
        ("theory", r"the rows of log\.jsonl"),
        ("list", "interrupted; nothing kept"),
    ],
)
def test_an_interruption_says_what_is_there(
    command, message, monkeypatch, tmp_path, capfd
):
    """`run` always said that it goes on, and all others that nothing is kept."""
    monkeypatch.setattr(manifest, "complete_steps", lambda folder: [3])

    def interrupt(options):
        if command != "list":
            with record.create(tmp_path, "run", {}) as log:
                log.append(kind="evaluation")
                if command != "theory":
                    (log.path / CHECKPOINTS / "gmc-0").mkdir(parents=True)
        raise signals.Ended(signal.SIGINT)

    monkeypatch.setattr(f"experiments.commands.{command}.main", interrupt)

    with pytest.raises(SystemExit) as end:
        main([command])

    assert end.value.code == 130
    assert re.search(message, capfd.readouterr().err)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["run", "digits_quick", "--backend", "pmap"], "`backend` is 'pmap', which"),
        (["run", "digits_quick", "--backend", "simulate"], "`backend` is 'simulate'"),
        (["run", "digits_quick", "--workers", "3"], "`workers` is 3, but 2 processes"),
        (["run", "digit"], "no run 'digit'"),
        (["theory"], "`theory` is of one. Start it without `launch`"),
        (["launch", "run"], "`launch` is of one"),
    ],
)
def test_what_several_processes_cannot_run_is_refused_before_any_starts(
    command, message, monkeypatch
):
    """It failed in all of them, in JAX's or orbax's words and a traceback."""
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises(SystemExit, match=message):
        main(["launch", "--hosts", "2", *command])


def test_results_are_where_checkpoints_can_be(tmp_path, monkeypatch):
    """It trained up to the first save; with a `~`, log and checkpoints went apart."""
    command = ["run", "digits_quick", "--results"]
    with pytest.raises(SystemExit, match=r"a name that orbax takes as it is"):
        main([*command, str(tmp_path / "a[lr=0.1]")])
    assert not list(tmp_path.rglob(LOG))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(SystemExit, match=rf"{tmp_path}/b\[c\]"):
        main([*command, "~/b[c]"])


def test_what_joins_is_refused_as_well(monkeypatch):
    """It waited for all others first, for their words about a misspelt name."""
    monkeypatch.setattr(subprocess, "Popen", None)
    others = ("--coordinator", "localhost:1", "--hosts", "2", "--host", "1")
    with pytest.raises(SystemExit, match="no run 'digit'"):
        main(["join", *others, "--patience", "1", "run", "digit"])
    with pytest.raises(SystemExit, match=r"`theory` is of one\. Start it wi"):
        main(["join", "theory"])
    with pytest.raises(ValueError, match="`backend` is 'pmap'"):
        backends.check_processes(2, 2, 2, "pmap")


def rows(path):
    return [row for row in read(path) if "method" in row]


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_process_is_taken_up_by_the_next_one(tmp_path, kill):
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
