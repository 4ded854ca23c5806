"""Compiles steps for GPUs or TPUs that are not here, and counts what they need.

XLA compiles for both without a device, a driver or a library of the vendor. Nothing
runs. The table has, for GMC through every channel and for other methods, the bytes that
one worker sends and what the program does to its memory; `hlo_costs` says how passes
are counted. Every worker has one device. Its batch is its gradient, so that a step of
GMC must take at least 7 passes: it reads gradient, residual, momentum and parameters,
and writes the last three.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from experiments.bench.compilers import COMPILERS, Target, check_installed
from experiments.bench.programs import Request, Stopped, rows
from experiments.bench.steps import transformations
from experiments.models.networks import MODELS
from experiments.training import record
from experiments.training.plot import tidy
from experiments.training.study import Study, say
from experiments.utils.tables import narrow
from gmc_jax.utils import checks

Model: TypeAlias = Literal[
    "leaves",
    "mlp",
    "mlp_1m",
    "mlp_10m",
    "resnet20_bn",
    "resnet20_gn",
    "vit",
    "vit_small",
]

CLASSES = 10


@dataclass(frozen=True)
class Compiled:
    """Compile steps for GPUs or TPUs that are not here; count what they need."""

    target: Target
    """What to compile for: 8 H100, or 8 chips of TPU v5e."""
    model: Model = "leaves"
    """The parameters: square leaves, or those of a network for images."""
    leaves: int = 4
    """The number of square leaves."""
    side: int = 1024
    """The length of their sides."""
    ratio: float = 0.001
    """The share of the entries that a message holds."""
    steps: tuple[str, ...] = ()
    """The steps to compile, by their names in the table; by default all."""
    results: Path = Path("results")
    """The directory of results; this run's is `bench/compiled_gpu-001` or a later one,
    or `compiled_tpu-001`."""

    def __post_init__(self):
        """Refuses values out of range, and unknown steps."""
        checks.positive_int(leaves=self.leaves, side=self.side)
        checks.fraction(ratio=self.ratio)
        known = transformations(self.ratio)
        unknown = [name for name in self.steps if name not in known]
        if unknown:
            raise ValueError(
                f"`steps` must be names of {', '.join(map(repr, known))}, got "
                f"{unknown[0]!r}."
            )

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the leaves of the parameters."""
        if self.model == "leaves":
            return [(self.side, self.side)] * self.leaves
        network = MODELS[self.model](CLASSES)
        images = jnp.zeros((1, 32, 32, 3))
        made = jax.eval_shape(
            lambda key: network.init(key, images, train=False), jax.random.key(0)
        )
        return [leaf.shape for leaf in jax.tree.leaves(made["params"])]


def main(config: Compiled) -> None:
    """Compiles all steps; prints, draws and logs what their programs hold."""
    check_installed(config.target)
    # An extra's plugin would look for its devices.
    jax.config.update("jax_platforms", "cpu")
    record.prepare(config.results / "bench")
    settings = asdict(config) | {
        "results": str(config.results),
        "device": COMPILERS[config.target].device,
    }
    with record.create(
        config.results / "bench", f"compiled_{config.target}", settings
    ) as log:
        for row in compile_all(config):
            log.append(**row)
            problem = row.get("error", f"{row.get('seconds', math.nan):.1f} s")
            say(f"{row['name']}: {problem}")
    STUDY.show(log.path)


def compile_all(config: Compiled) -> Iterator[record.Row]:
    """Yields a row for each step, as soon as it is compiled or has failed."""
    names = list(config.steps or transformations(config.ratio))
    while names:
        request = Request(config.target, config.shapes, config.ratio, names)
        done = 0
        try:
            for row in rows(request):
                yield {"kind": "program", **row}
                done += 1
        except Stopped as error:
            yield {"kind": "failed", "name": names[done], "error": str(error)}
            done += 1
        names = names[done:]


def passes(row: record.Row) -> float:
    """The bytes that a step moves, in passes over the parameters."""
    return row["moved"] / (4 * row["entries"])


def temporary(row: record.Row) -> float:
    """The most temporary memory of a step, in trees of the parameters."""
    return row["temporary"] / (4 * row["entries"])


def largest_sort(row: record.Row) -> int:
    """The number of entries of the largest sort."""
    return max((entries for entries, *_ in row["sorts"]), default=0)


def scatters(row: record.Row) -> int:
    """How often a step scatters into a tenth of the entries or more."""
    return sum(
        times for entries, times, _ in row["scatters"] if 10 * entries >= row["entries"]
    )


def _tables(rows: Sequence[record.Row]) -> list[Table]:
    config, *_ = (row["config"] for row in rows if row["kind"] == "header")
    compiled = [row for row in rows if row["kind"] == "program"]
    entries = " ".join(f"{size:,}" for size in {row["entries"] for row in compiled})
    sent = _table(
        f"Steps for {config['device']}, {entries} parameters, ratio "
        f"{config['ratio']:g}: bytes of one worker",
        "message: of its messages, the mean over steps. wire: the most that it puts "
        "into collectives. always: outside of conditionals.",
        ("message", "wire", "always"),
    )
    memory = _table(
        "Memory",
        "passes: bytes read and written, in units of the parameters; a sort counts as "
        "one pass each way. temp: temporary memory in trees. sort: the largest one, in "
        "units of the parameters. scatters: those into a tenth of the entries or more. "
        "atomics: in the kernels, or scatters whose updates may meet. donated: of the "
        "state.",
        ("passes", "temp", "sort", "scat-\nters", "atomics", "donated", "s"),
    )
    for row in compiled:
        meeting = sum(not unique for *_, unique in row["scatters"])
        sent.add_row(
            row["name"], *(f"{row[one]:,.0f}" for one in ("message", "wire", "always"))
        )
        memory.add_row(
            row["name"],
            f"{passes(row):.1f}",
            f"{temporary(row):.2f}",
            f"{largest_sort(row) / row['entries']:.2f}",
            str(scatters(row)),
            str(row["atomics"] if row["kernels"] else meeting),
            f"{min(1, row['donated'] / row['state']):.0%}",
            f"{row['seconds']:.0f}",
        )
    for row in rows:
        if row["kind"] == "failed":
            sent.add_row(row["name"], "failed")
    return [sent, memory]


def _table(title: str, caption: str, columns: Sequence[str]) -> Table:
    table = narrow("step", title, caption)
    for name in columns:
        table.add_column(name, justify="right")
    return table


def _figures(rows: Sequence[record.Row]) -> dict[str, Figure]:
    compiled = [row for row in rows if row["kind"] == "program"]
    config, *_ = (row["config"] for row in rows if row["kind"] == "header")
    figure = Figure(figsize=(7.2, 5.4), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    names = [row["name"] for row in compiled]
    places = np.arange(len(names))
    left.barh(places, [passes(row) for row in compiled], color="#0072B2")
    left.axvline(7, color="0.3", linestyle=":", linewidth=0.8)
    left.set(xlabel="passes over the parameters")
    right.barh(places, [temporary(row) for row in compiled], color="#D55E00")
    right.set(xlabel="temporary memory, trees")
    left.set_yticks(places, names, fontsize="x-small")
    left.invert_yaxis()
    for panel in (left, right):
        tidy(panel)
        panel.set_axisbelow(True)
    figure.suptitle(f"Steps compiled for {config['device']}", fontsize="small")
    return {"figure": figure}


STUDY = Study("program", "moved", _tables, _figures)
