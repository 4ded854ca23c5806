"""The command line, in this process."""

import json
import re
import signal
import subprocess

import jax
import pytest

from experiments.__main__ import main
from experiments.commands import COMMANDS
from experiments.training import backends, record
from experiments.training.record import CHECKPOINTS
from experiments.utils import signals
from gmc_jax.checkpoints import manifest


def test_all_commands_are_listed(capsys):
    main(["--help"])

    shown = capsys.readouterr().out
    assert all(command in shown for command in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rum"], "no command 'rum'; the commands are run, list"),
        (["run", "digit"], "no run 'digit'. The named runs are d2_digits"),
        (["run", "digits", "--alpha", "-1"], "`alpha` .* got -1"),
        (
            ["run", "digits", "--backend", "pmap", "--workers", "9"],
            "`workers` .* got 9",
        ),
        (["table", "--results", "/nowhere"], "no results in /nowhere"),
        (["table", "5"], "tables of the paper are 1, 2, 3, 4, got 5"),
        (["table", "/nowhere"], "no run in /nowhere"),
        (["plot", "/nowhere"], "no run in /nowhere"),
        (["run", "digits", "--results", "/dev/null"], "`results` is '/dev/null'"),
    ],
)
def test_an_error_of_this_project_has_no_traceback(arguments, message):
    assert len(jax.devices()) == 8  # Once JAX has started, a ninth cannot be had.
    with pytest.raises(SystemExit, match=message):
        main(arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "digits", "--method", "sgd"], "'sgd'"),
        (["theory", "--seeds", "0"], "`seeds`"),
        (["quadratic", "--steps", "0"], "`steps`"),
        (["bench", "compress", "--d", "-5"], "`d`"),
        (["bench", "simulate", "--repeats", "0"], "`repeats`"),
    ],
)
def test_an_option_out_of_range_is_an_error(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    # Newer versions of tyro print what a dataclass raises, in a box whose lines they
    # break; older ones leave it to us.
    printed = f"{capsys.readouterr().err}{ended.value}".replace("│", " ")
    assert message in " ".join(printed.split())


def test_any_other_error_keeps_its_traceback(monkeypatch):
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
def test_an_interruption_names_what_is_kept(
    command, message, monkeypatch, tmp_path, capfd
):
    """`run` always printed that it goes on, and other commands that nothing is kept."""
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
        (
            ["run", "digits_quick", "--backend", "pmap"],
            "`backend` .* got 'pmap'",
        ),
        (
            ["run", "digits_quick", "--backend", "simulate"],
            "got 'simulate'",
        ),
        (["run", "digits_quick", "--workers", "3"], "`workers` must be 2, .* got 3"),
        (["run", "digit"], "no run 'digit'"),
        (["theory"], "got `theory`, which runs in one. Start it without `launch`"),
        (["launch", "run"], "got `launch`, which runs in one"),
    ],
)
def test_launch_refuses_bad_commands_before_it_starts_processes(
    command, message, monkeypatch
):
    """All processes failed with a traceback of JAX or orbax."""
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises(SystemExit, match=message):
        main(["launch", "--hosts", "2", *command])


def test_join_refuses_bad_commands_before_it_waits(monkeypatch):
    """It waited for the others, and all reported a misspelt name."""
    monkeypatch.setattr(subprocess, "Popen", None)
    others = ("--coordinator", "localhost:1", "--hosts", "2", "--host", "1")
    with pytest.raises(SystemExit, match="no run 'digit'"):
        main(["join", *others, "--patience", "1", "run", "digit"])
    with pytest.raises(SystemExit, match=r"`theory`, which runs in one\. Start it"):
        main(["join", "theory"])
    with pytest.raises(ValueError, match="got 'pmap'"):
        backends.check_processes(2, 2, 2, "pmap")
