"""Tests of the script for one device: its parts, their time, and its summary."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from experiments.bench import device, wire
from experiments.bench.device import Device, Found, Part
from experiments.commands import _studies
from experiments.training import record

GPU, CPU = Found("gpu", 1, "a GPU"), Found("cpu", 1, "cpu")


def test_parts_of_one_accelerator(tmp_path, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS")
    compress, simulate, epoch, tests, sent = device.parts(Device(), GPU, tmp_path)

    assert [*compress.command[2:4]] == ["bench", "compress"]
    assert [*simulate.command[2:4]] == ["bench", "simulate"]
    assert [*epoch.command[2:4]] == ["run", "table2_cifar10_resnet20"]
    assert {"tests/channels", "tests/compressors"} <= {*tests.command}
    assert tests.variables["JAX_PLATFORMS"] == "gpu,cpu"
    assert tests.variables["XLA_FLAGS"] == ""  # The tests set those of a CPU.
    assert sent.missing == "one device sends nothing"
    for part in (compress, simulate, epoch, sent):
        assert str(tmp_path) in part.command
    ends = [part.until for part in (compress, simulate, epoch, tests, sent)]
    assert ends == sorted(ends)
    assert ends[-1] == 1


def test_images_come_from_a_file_or_were_prepared(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))

    def epoch(config: Device) -> Part:
        return device.parts(config, GPU, tmp_path)[2]

    assert "not prepared" in epoch(Device()).missing
    file = tmp_path / "cifar.npz"
    assert epoch(Device(data_file=file)).missing == f"there is no {file}"
    np.savez(file)
    assert not epoch(Device(data_file=file)).missing
    assert str(file) in epoch(Device(data_file=file)).command
    (tmp_path / "cifar10").mkdir()
    assert not epoch(Device()).missing


@pytest.mark.slow
def test_a_summary_says_how_each_part_ended(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    forever = "import time; print('begun', flush=True); time.sleep(600)"
    chosen = [
        Part("good", ["-c", "import os; print('of', os.environ['MINE'])"], 0.5),
        Part("bad", ["-c", "print('broken'); raise SystemExit(3)"], 0.5),
        Part("absent", ["-c", "print('never')"], 0.5, missing="no data"),
        Part("long", ["-c", forever], 0.5),
        Part("late", ["-c", "print('never')"], 0.1),
    ]
    chosen[0] = chosen[0]._replace(variables={"MINE": "mine"})
    monkeypatch.setattr(device, "LEAST", 0.4)
    monkeypatch.setattr(device, "probe", lambda: GPU)
    monkeypatch.setattr(device, "parts", lambda *_: chosen)

    device.main(Device(seconds=3, results=tmp_path))

    printed = capsys.readouterr().out
    path = tmp_path / "bench" / "device-001"
    rows = record.read(path)
    outcomes = {row["part"]: row["outcome"] for row in rows if row["kind"] == "part"}
    assert outcomes.pop("long").startswith("stopped after")
    assert outcomes == {
        "good": "done",
        "bad": "failed with exit code 3",
        "absent": "left out: no data",
        "late": "left out: no time is left",
    }
    assert "never" not in printed
    for words in ("of mine", "broken", "begun", "1 x a GPU", "failed with exit code 3"):
        assert words in printed
    assert (path / "good.txt").read_text() == "of mine\n"
    assert rows[-1]["seconds"] < 3
    study, _ = _studies.read(path)
    assert study is device.STUDY


@pytest.mark.parametrize(
    ("method", "sent"),
    [
        ("exact", 4000),
        ("top_k", 80),
        # A matrix of 24 by 24 entries, and the rest.
        pytest.param("low_rank(4)", 4 * (4 * 48 + 424), marks=pytest.mark.slow),
    ],
)
def test_programs_send_messages_and_nothing_else(method, sent):
    tx, channel = wire.methods(0.01, 8)[method]
    row = wire.compared(tx, channel, 1000)
    assert row["sent"] == row["message"] == sent
    # Worker k's batch is k, and all parameters are 0.
    assert row["loss"] == pytest.approx(1000 * np.mean(np.arange(8) ** 2))


@pytest.mark.slow
def test_every_program_sends_what_its_message_holds(tmp_path, capsys, monkeypatch):
    """Of rows that are alike, one each."""
    methods = wire.methods(0.01, 8)
    names = "exact", "top_k per leaf", "quantised, by chunks", "scaled_sign, late"
    others = "terngrad", "two_phase, integers(8)", "low_rank(4)", "majority_vote"
    chosen = {
        name: methods[name] for name in (*names, *others, "ring", "ring, differences")
    }
    monkeypatch.setattr(wire, "methods", lambda *_: chosen)
    wire.main(wire.Wire(d=1000, results=tmp_path))
    printed = capsys.readouterr().out
    rows = record.read(tmp_path / "bench" / "wire-001")[1:]
    assert [row["method"] for row in rows] == [*chosen]
    for row in rows:
        sends_results = row["method"].startswith(("two_phase", "majority_vote"))
        over = row["sent"] - row["message"]
        assert 0 < over <= row["message"] if sends_results else over == 0
        assert f"│ {row['method']} " in printed


@pytest.mark.slow
def test_the_whole_script_runs_on_a_cpu(tmp_path):
    command = ["-m", "experiments", "bench", "device", "--small", "--seconds", "200"]
    done = subprocess.run(
        [sys.executable, *command, "--results", str(tmp_path)],
        cwd=device.ROOT,
        env=os.environ | {"COLUMNS": "100", "TFDS_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = record.read(tmp_path / "bench" / "device-001")
    outcomes = [row["outcome"] for row in rows if row["kind"] == "part"]
    assert outcomes[2].startswith("left out: CIFAR-10 is not prepared")
    assert outcomes[:2] + outcomes[3:] == ["done"] * 4
    assert "together" in done.stdout


@pytest.mark.slow
def test_with_few_devices_tests_that_need_more_are_skipped():
    files = "tests/channels/sharded/test_context.py", "tests/channels/test_exact.py"
    pytest_options = device.parts(Device(), CPU, device.ROOT)[3].command[:-2]
    done = subprocess.run(
        [sys.executable, *pytest_options, "-rs", *files],
        cwd=device.ROOT,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "it needs 8 devices" in done.stdout
    assert re.search(r"[1-9]\d* passed, [1-9]\d* skipped", done.stdout)
