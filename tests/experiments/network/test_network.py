"""The laboratory: rates of links, the kernel's counters, and removal of hosts."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from rich.console import Console

import gmc_jax
from experiments.__main__ import main
from experiments.network import counters, figures, measurements, namespaces, report
from experiments.network.counters import Traffic
from experiments.network.lineup import LINEUP, OURS
from experiments.network.options import Network
from experiments.network.orchestrate import orchestrate
from experiments.training.compression import Compression
from experiments.training.methods import METHODS
from experiments.training.record import read
from tests.support.stoppable import EXPERIMENTS


def _allowed() -> bool:
    if os.geteuid() or not shutil.which("ip") or not shutil.which("tc"):
        return False
    try:
        with namespaces.hosts(1) as network:
            network.shape(1e6)
    except OSError:
        return False
    return True


needs_root = pytest.mark.skipif(not _allowed(), reason="needs root, iproute2 and Linux")


def names(pid: int) -> set[str]:
    """The namespaces, links and files that a process has made and not removed."""
    listed = subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout
    links = subprocess.run(["ip", "link"], capture_output=True, text=True).stdout
    files = " ".join(path.name for path in namespaces._NAMES.glob("*"))
    return set(re.findall(rf"\bgmc{pid}(?:h\d+)?\b", f"{listed} {links} {files}"))


def test_steps_fit_into_the_budget_in_whole_periods():
    assert measurements.steps_for(0.5, 10) == 20
    assert measurements.steps_for(100, 10) == measurements.FEWEST
    assert measurements.steps_for(1e-9, 10) == measurements.MOST
    assert measurements.steps_for(6, 60, period=12) == 120
    assert measurements.steps_for(100, 1, period=12) == 12 * measurements.FEWEST


def test_a_row_is_of_one_step_and_of_all_hosts():
    ends, losses = [1.0, 2.0, 3.0, 6.0], [4.0, 3.0, 2.0, 1.0]
    one = measurements.of_one(Traffic(400, 800), ends, losses, message_bytes=7)
    assert (one["seconds"], one["out"], one["into"]) == (1.5, 100, 200)
    other = measurements.of_one(Traffic(800, 400), ends, [0.0] * 4, message_bytes=7)
    together = measurements.of_all([one, other], shared_interface=False)
    assert (together["out"], together["into"]) == (150, 150)
    assert together["losses"] == [2.0, 1.5, 1.0, 0.5]
    assert together["message_bytes"] == 7
    shared = measurements.of_all([one, one], shared_interface=True)
    assert (shared["out"], shared["into"]) == (50, 100)
    unknown = measurements.of_one(None, ends, losses)
    assert measurements.of_all([unknown], shared_interface=False)["out"] is None


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's counters")
def test_the_kernel_counts():
    with pytest.raises(ValueError, match=r"`interface` .* lo.*, got 'none9'"):
        counters.read("none9")
    loopback, others = counters.read("lo"), counters.read()
    assert loopback is not None
    assert others is not None
    _send_and_receive("127.0.0.1", 100_000, [])
    came = counters.since(loopback, "lo")
    assert came is not None
    assert 100_000 <= came.out <= came.into <= 2e6
    assert counters.since(None) is None


def _send_and_receive(address: str, size: int, inside: list[str]) -> float:
    """Seconds to send bytes from one host to the address of another."""
    receiver = [*inside, sys.executable, "-c", _RECEIVE, address, str(size)]
    with subprocess.Popen(receiver, stdout=subprocess.PIPE, text=True) as receiving:
        assert receiving.stdout is not None
        port = receiving.stdout.readline().strip()
        sender = [sys.executable, "-c", _SEND, address, port, str(size)]
        if inside:
            sender = [*inside[:-1], inside[-1][:-1] + "1", *sender]
        subprocess.run(sender, check=True)
        return float(receiving.stdout.readline())


_RECEIVE = """
import socket, sys, time
listener = socket.create_server((sys.argv[1], 0))
print(listener.getsockname()[1], flush=True)
connection, _ = listener.accept()
began, left = time.perf_counter(), int(sys.argv[2])
while left:
    left -= len(connection.recv(65536))
print(time.perf_counter() - began, flush=True)
"""
_SEND = """
import socket, sys
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])))
connection.sendall(bytes(int(sys.argv[3])))
connection.shutdown(socket.SHUT_WR)
connection.recv(1)
"""


@needs_root
def test_a_link_has_its_rate_and_its_counters():
    with namespaces.hosts(2) as network:
        network.shape(1e6)
        size = 500_000
        seconds = _send_and_receive(network.address(0), size, network.inside(0))
        assert seconds > 0.9 * size / 1e6
        network.shape(float("inf"))
        assert _send_and_receive(network.address(0), size, network.inside(0)) < seconds
        inside = [*network.inside(0), sys.executable, "-c"]
        look = "from experiments.network import counters; print(*counters.read())"
        seen = subprocess.run([*inside, look], capture_output=True, text=True)
        _, into = map(int, seen.stdout.split())
        assert 2 * size < into < 2.2 * size
        name = "import socket; print(socket.gethostbyname(socket.gethostname()))"
        found = subprocess.run([*inside, name], capture_output=True, text=True)
        assert found.stdout.strip() == network.address(0)
    assert not names(os.getpid())


@needs_root
def test_hosts_are_removed_after_an_error():
    def fail():
        with namespaces.hosts(2):
            assert names(os.getpid())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not names(os.getpid())


@needs_root
def test_hosts_of_a_killed_laboratory_are_removed_by_the_next():
    lines = (
        "import time",
        "from experiments.network import namespaces",
        "with namespaces.hosts(1): print('made', flush=True); time.sleep(60)",
    )
    command = [sys.executable, "-c", "\n".join(lines)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        killed.stdout.readline()
        killed.kill()
    assert names(killed.pid)
    with namespaces.hosts(1):
        assert not names(killed.pid)


def seen(rate: str, method: str, seconds: float, predicted: float | None) -> dict:
    """A row of the laboratory."""
    ends = [seconds * (step + 1) for step in range(4)]
    sizes = {"message_bytes": 8e4, "wire_bytes": 8e4}
    row = measurements.of_one(Traffic(400, 800), ends, [4.0, 3.0, 2.0, 1.0], **sizes)
    planned = {} if predicted is None else {"predicted": predicted}
    return {"rate": rate, "method": method, **row, **planned}


def test_tables_compare_with_the_first_method_and_name_misses():
    measured = [
        seen("10mbit", "dense", 2.0, 1.8),
        seen("10mbit", "top_k", 0.1, 0.2),
        seen("10mbit", "ddp", 2.5, None),
    ]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(report.table(measured, "10mbit", 4))
    shown = console.export_text()
    assert re.search(r"GMC, top_k +0.1 +20 +0.2 +0.1 kB +0.2 kB +80 kB", shown)
    assert re.search(r"PyTorch DDP, dense +2.5 +0.8 +0.1 kB", shown)
    first, *missed = report.hits(measured)
    assert first == "Predictions are off by 55% in the median of 2."
    assert missed == ["Missed: GMC, top_k at 10mbit, +100%."]
    assert report.hits(measured[2:]) == []


def test_figures_have_step_times_and_a_panel_for_each_rate():
    measured = [
        seen(rate, method, seconds, seconds)
        for rate in ("10mbit", "unshaped")
        for method, seconds in (("dense", 2.0), ("ddp", 3.0))
    ]
    times, slow, fast = figures.draw(measured, "title").axes
    assert [len(panel.lines) for panel in (times, slow, fast)] == [4, 2, 2]
    assert list(np.asarray(times.lines[0].get_ydata())) == [2.0, 2.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rates": ("fast",)}, "fast"),
        ({"methods": ("adam",)}, "among dense, .* got 'adam'"),
        ({"methods": ()}, "must each name at least one"),
        ({"hosts": 0}, "`hosts`"),
        ({"ratio": 2.0}, "`ratio`"),
    ],
)
def test_options_out_of_range_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        Network(**options)


def test_every_entry_of_ours_is_a_training():
    for name in OURS:
        config = Network(model="mlp").config(LINEUP[name])
        assert config.methods == (LINEUP[name].method,)
        assert config.compressor == LINEUP[name].compressor


@pytest.mark.parametrize("name", OURS)
def test_what_is_planned_of_an_entry_is_what_its_method_sends(name):
    entry, layer = LINEUP[name], {"kernel": np.zeros((40, 20)), "bias": np.zeros(20)}
    params = {f"Dense_{place}": layer for place in range(4)}
    compression = Compression(entry.compressor, 0.1, counts=False)
    tx = METHODS[entry.method or ""].build(0.1, compression, 0.9)
    (sync,) = entry.pattern(0.1).syncs
    bits = gmc_jax.message_bits(sync.channel, params)
    assert gmc_jax.message_bits(tx, params) == pytest.approx(bits / sync.period)
    assert gmc_jax.peak_message_bits(tx, params) == bits / sync.fragments


@pytest.mark.slow
def test_without_root_the_loopback_is_used_with_a_remark(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    options = ["--hosts", "2", "--model", "mlp", "--seconds", "0.1"]
    results = ["--results", str(tmp_path)]
    main(["network", *options, *results, "--methods", "dense", "top_k"])
    shown = capsys.readouterr().out
    assert "not shaped: only root can" in shown
    measured = read(tmp_path / "network" / "run-001")[1:]
    assert [row["rate"] for row in measured] == ["lo", "lo"]
    dense = measured[0]
    assert dense["out"] == pytest.approx(dense["dense_bytes"], rel=0.3)


@needs_root
@pytest.mark.slow
def test_dense_momentum_sgd_takes_the_time_of_the_link(tmp_path):
    config = Network(
        hosts=2,
        model="mlp",
        rates=("20mbit", "unshaped"),
        methods=("dense", "slowmo"),
        seconds=1,
    )
    slow, local, fast, _ = list(orchestrate(config, Console(quiet=True)))
    # A ring of two sends each byte once.
    assert slow["out"] == pytest.approx(slow["dense_bytes"], rel=0.1)
    assert slow["into"] == pytest.approx(slow["dense_bytes"], rel=0.1)
    assert slow["wire_bytes"] == pytest.approx(slow["message_bytes"], rel=0.01)
    assert local["message_bytes"] == pytest.approx(slow["message_bytes"] / 12)
    assert local["out"] == pytest.approx(slow["out"] / 12, rel=0.3)
    assert slow["losses"][0] > slow["losses"][-1]
    # Each from the same start, whatever was tried before.
    first = [row["losses"][0] for row in (slow, local, fast)]
    assert first == pytest.approx([first[0]] * 3, rel=1e-3)
    # As the link allows, and so as the planner counts; how much slower a machine is
    # that has other work is nobody's to say.
    least = slow["dense_bytes"] / 2.5e6
    assert slow["seconds"] > least
    assert slow["predicted"] - slow["computing"] > least
    assert local["predicted"] - local["computing"] > least / 12
    assert fast["predicted"] > fast["computing"] > 0


@needs_root
@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_laboratory_leaves_nothing(tmp_path, name):
    command = [*EXPERIMENTS, "network", "--hosts", "2"]
    options = ["--model", "mlp", "--results", str(tmp_path)]
    laboratory = subprocess.Popen([*command, *options], start_new_session=True)
    while not names(laboratory.pid):
        time.sleep(0.05)
    time.sleep(5)
    laboratory.send_signal(getattr(signal, name))
    assert laboratory.wait(timeout=30)
    assert not names(laboratory.pid)
    running = subprocess.run(["ps", "-ef"], capture_output=True, text=True).stdout
    assert str(tmp_path) not in running


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name in LINEUP if name not in OURS])
def test_pytorch_trains_on_the_same_batches(method, tmp_path):
    pytest.importorskip("torch")
    options = ["--hosts", "2", "--model", "mlp", "--seconds", "1"]
    results = ["--results", str(tmp_path), "--rates", "unshaped"]
    main(["network", *options, *results, "--methods", method])
    (row,) = read(tmp_path / "network" / "run-001")[1:]
    # A ring of two sends each byte once.
    assert row["out"] == pytest.approx(row["message_bytes"], rel=0.3)
    assert row["message_bytes"] < row["dense_bytes"] or method == "ddp"
    assert row["losses"][-1] < row["losses"][0]


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        ("99999gbit", "1kbit to 80gbit, .* or unshaped, got '99999gbit'"),
        ("90gbit", "1kbit to 80gbit"),
        ("1bit", "1kbit to 80gbit"),
        ("0mbit", "greater than 0"),
        ("nan", "'nan' is not a rate"),
        ("1e400gbit", "too large"),
        ("-1mbit", "is not a rate"),
    ],
)
def test_a_rate_that_tc_cannot_set_is_refused_before_anything_starts(rate, message):
    """These rates were refused only by `ip`, `tc` or a host."""
    with pytest.raises(ValueError, match=message):
        Network(rates=("10mbit", rate))


def test_unknown_models_and_names_given_twice_are_refused_too():
    with pytest.raises(ValueError, match=r"`model` .* got 'mlp_9'"):
        Network(model="mlp_9")
    with pytest.raises(ValueError, match="`rates` must name nothing twice"):
        Network(rates=("1mbit", "1mbit"))
    with pytest.raises(ValueError, match="`methods` must name nothing twice"):
        Network(methods=("dense", "dense"))
    Network(rates=("1kbit", "80gbit", "unshaped"))


@needs_root
def test_tc_sets_the_slowest_and_the_fastest_rate():
    with namespaces.hosts(1) as network:
        network.shape(namespaces.SLOWEST)
        network.shape(namespaces.FASTEST)
