"""Runs everything that needs an accelerator, in a few minutes, in one command.

Its parts run one after another on whatever device JAX has, each in a process of its
own: `bench compress`, `bench simulate`, an epoch of `table2_cifar10_resnet20`, the
tests of channels and compressors, and `bench wire`. Every part must end by a share of
all the time, and is stopped if it does not. What one part saves, the next ones may use.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import jax
from rich.table import Table

from experiments.training import record
from experiments.training.study import Study, say
from gmc_jax.utils import checks

ROOT = Path(__file__).parents[2]
RUN = "table2_cifar10_resnet20"
SHOWN = 40  # The last lines of a part that are printed.
LEAST = 5  # A part does not begin with fewer seconds.
_OURS = ("-m", "experiments")
_PYTEST = ("-m", "pytest", "-p", "no:cacheprovider", "-p", "tests.support.few_devices")
_EPOCH = ("--methods", "gmc", "--seeds", "1", "--epochs", "1", "--evaluations", "1")
_PROBE = """
import jax
device, *_ = devices = jax.devices()
print(device.platform, len(devices), device.device_kind)
"""


@dataclass(frozen=True)
class Device:
    """Run the benchmarks, an epoch and tests on this device, in a few minutes."""

    seconds: float = 360
    """The time of all parts together."""
    small: bool = False
    """Whether to take sizes that a CPU computes in a minute."""
    data_file: Path | None = None
    """An .npz file with CIFAR-10, if `tensorflow_datasets` has not prepared it."""
    results: Path = Path("results")
    """The directory of results; this run's is `bench/device-001` or a later one."""

    def __post_init__(self):
        """Refuses numbers out of range."""
        checks.positive(seconds=self.seconds)


class Found(NamedTuple):
    """The device that JAX has by default.

    Attributes:
      platform: `cpu`, `gpu` or `tpu`.
      devices: how many there are.
      kind: their name.
    """

    platform: str
    devices: int
    kind: str


class Part(NamedTuple):
    """A process.

    Attributes:
      name: of the part, and of the file with its output.
      command: the arguments of Python.
      until: the share of all the time by which it must have ended.
      variables: of its environment, besides those of this process.
      missing: why it cannot run; empty if it can.
    """

    name: str
    command: Sequence[str]
    until: float
    variables: Mapping[str, str] = {}
    missing: str = ""


def main(config: Device) -> None:
    """Runs all parts; prints and logs how each of them ended, and its seconds."""
    # The processes of the parts hold the device, this one must not.
    jax.config.update("jax_platforms", "cpu")
    record.prepare(config.results / "bench")
    start = time.monotonic()
    found = probe()
    settings = asdict(config) | {"results": str(config.results)}
    with record.create(
        config.results / "bench", "device", settings, device=found._asdict()
    ) as log:
        say(f"{found.devices} x {found.kind} ({found.platform}). Log: {log.path}")
        for part in parts(config, found, log.path):
            left = part.until * config.seconds - (time.monotonic() - start)
            outcome, seconds = run(part, left, log.path / f"{part.name}.txt")
            say(f"{part.name}: {outcome}, {seconds:.0f} s")
            log.append(kind="part", part=part.name, outcome=outcome, seconds=seconds)
        log.append(kind="all", seconds=time.monotonic() - start)
    STUDY.print(record.read(log.path))
    say(f"Log: {log.path}")


def probe() -> Found:
    """Asks another process which device JAX has, so that it stays free here."""
    asked = [sys.executable, "-c", _PROBE]
    answer = subprocess.run(asked, capture_output=True, text=True, cwd=ROOT)
    if answer.returncode:
        raise ValueError(f"JAX must find a device, got: {answer.stderr.strip()}")
    platform, count, kind = answer.stdout.splitlines()[-1].split(maxsplit=2)
    return Found(platform, int(count), kind)


def parts(config: Device, found: Found, results: Path) -> list[Part]:
    """Lists what runs on a device, with its results in a directory."""
    to = ["--results", str(results.absolute())]
    compress, simulate = ["bench", "compress", *to], ["bench", "simulate", *to]
    wire, epoch = ["bench", "wire", *to], ["run", RUN, *_EPOCH, *to]
    tests = ["tests/channels", "tests/compressors"]
    if config.small:
        compress += ["--d", "100000", "--repeats", "3"]
        simulate += ["--workers", "2", "--batch-size", "4", "--image-size", "8"]
        simulate += ["--model", "mlp", "--repeats", "3"]
        epoch += ["--fraction", "0.02"]
        wire += ["--d", "10000"]
        tests = ["tests/channels/test_exact.py", "tests/compressors/test_dense.py"]
    if config.data_file:
        epoch += ["--data-file", str(config.data_file.absolute())]
    cpu = found.platform == "cpu"
    return [
        Part("compress", [*_OURS, *compress], until=0.2),
        Part("simulate", [*_OURS, *simulate], until=0.4),
        Part(
            "epoch",
            [*_OURS, *epoch],
            until=0.65,
            missing=_without_images(config.data_file),
        ),
        Part(
            "tests",
            [*_PYTEST, "-n", str(_processes(found)), *tests],
            until=0.92,
            variables={} if cpu else _on_accelerator(found),
            missing="" if (ROOT / "tests").is_dir() else "there are no tests here",
        ),
        Part(
            "wire",
            [*_OURS, *wire],
            until=1.0,
            variables={"JAX_NUM_CPU_DEVICES": "8"} if cpu else {},
            missing="" if cpu or found.devices > 1 else "one device sends nothing",
        ),
    ]


def run(part: Part, limit: float, output: Path) -> tuple[str, float]:
    """Runs a part for at most `limit` seconds; returns how it ended, and its seconds.

    Its output is in the file, and the last lines of it are printed.
    """
    if part.missing:
        return f"left out: {part.missing}", 0.0
    if limit < LEAST:
        return "left out: no time is left", 0.0
    start = time.monotonic()
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, *part.command],
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={"COLUMNS": "100", **os.environ, **part.variables},
            start_new_session=True,
        )
        try:
            code = process.wait(limit)
            outcome = "done" if code == 0 else f"failed with exit code {code}"
        except subprocess.TimeoutExpired:
            outcome = f"stopped after {limit:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    for line in output.read_text(errors="replace").splitlines()[-SHOWN:]:
        say(line)
    return outcome, time.monotonic() - start


def _on_accelerator(found: Found) -> dict[str, str]:
    """Variables with which tests run on an accelerator, and not on eight CPUs."""
    return {
        "JAX_PLATFORMS": f"{found.platform},cpu",
        # Several processes share its memory.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        # Not the flags that the tests set for a CPU.
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    }


def _processes(found: Found) -> int:
    """How many processes run tests; 0 for pytest's own, since one TPU serves one."""
    return min(8, os.cpu_count() or 1) if found.platform == "gpu" else 0


def _without_images(data_file: Path | None) -> str:
    """Why CIFAR-10 cannot be read; empty if it can."""
    if data_file is not None:
        return "" if data_file.is_file() else f"there is no {data_file}"
    home = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    if (Path(home).expanduser() / "cifar10").is_dir():
        return ""
    return "CIFAR-10 is not prepared; name its file with --data-file"


def _tables(rows: Sequence[record.Row]) -> list[Table]:
    device = rows[0]["device"]
    shown = Table(
        "part",
        "outcome",
        title=f"{device['devices']} x {device['kind']} ({device['platform']})",
    )
    shown.add_column("seconds", justify="right")
    for row in rows:
        if row["kind"] == "part":
            shown.add_row(row["part"], row["outcome"], f"{row['seconds']:.0f}")
        elif row["kind"] == "all":
            shown.add_section()
            shown.add_row("together", "", f"{row['seconds']:.0f}")
    return [shown]


STUDY = Study("part", "outcome", _tables)
"""The command line's summary of all parts."""
