"""The command `plan`: what a step would take over a link, before anybody trains.

It plans the time of a step, not what a step is worth: how many more of them a method
needs where it sends less, `python -m experiments run` shows on problems that fit here.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import gmc_jax
from experiments import plan_figures, record
from experiments.units import bytes_per_second, seconds, whole
from gmc_jax import checks
from gmc_jax.encodings import TWO_CORES
from gmc_jax.planning import Prediction
from gmc_jax.timelines import Link


@dataclass(frozen=True)
class Plan:
    """What a step would take over a link: which methods and ratios are worth it."""

    parameters: str = "1e9"
    """How many the model has, in float32."""
    workers: int = 64
    """How many workers there are."""
    bandwidth: str = "1gbit"
    """Of each worker's link, each way: 100mbit, 1gbit, 12.5mbps (bytes), unshaped."""
    latency: str = "20ms"
    """Of a message: 20ms, 500us, 0.1s."""
    step_time: str = "0.5s"
    """What a step takes to compute."""
    ratios: tuple[float, ...] = (0.1, 0.01, 0.001)
    """The shares of the entries that messages hold."""
    periods: tuple[int, ...] = (12, 48)
    """Steps between the meetings of local methods."""
    measure: bool = False
    """Time the compressors on this device, for a minute; by default they cost what they
    cost on two CPU cores, more than on any accelerator."""
    results: Path = Path("results")
    """Where a new directory, `plan/run-001` or a later number, is made."""

    def __post_init__(self):
        """Refuses what makes no plan."""
        checks.positive(workers=self.workers, parameters=whole(self.parameters))
        checks.magnitude(step_time=seconds(self.step_time))
        checks.amount(latency=self.link.latency)

    @property
    def link(self) -> Link:
        """What is asked about."""
        return Link(seconds(self.latency), bytes_per_second(self.bandwidth))


def main(config: Plan) -> None:
    """Plans; leaves a table, a figure and a log."""
    record.prepare(config.results)
    encodings = gmc_jax.measure_encodings() if config.measure else TWO_CORES
    rows = gmc_jax.plan(
        whole(config.parameters),
        config.workers,
        config.link,
        seconds(config.step_time),
        ratios=config.ratios,
        periods=config.periods,
        encodings=encodings,
    )
    with record.create(config.results / "plan", "run", asdict(config)) as log:
        for row in rows:
            log.append(
                kind="prediction",
                method=row.name,
                ratio=row.ratio,
                bytes=row.traffic.bytes,
                hops=row.traffic.hops,
                seconds=row.seconds,
                compute=row.compute,
                encoding=row.encoding,
                network=row.network,
                longest=row.longest,
                utilisation=row.utilisation,
                speed_up=row.speed_up,
                faster_between=_finite(row.faster_between),
                break_even_ratio=row.break_even_ratio,
            )
        plan_figures.draw(
            whole(config.parameters),
            config.workers,
            config.link,
            seconds(config.step_time),
            encodings,
        ).savefig(log.path / "figure.png")
    console = Console()
    console.print(_table(rows, config))
    for line in _in_words(rows):
        console.print(line, highlight=False)
    console.print(f"Figure and log: {log.path}")


def verdict(row: Prediction, dense: Prediction) -> str:
    """Whether it pays, and if not, what would."""
    if row.name == dense.name:
        return ""
    if row.breaks_even:
        return f"{row.speed_up:.3g} times faster"
    if row.traffic.bytes > dense.traffic.bytes:
        why = "useless: sends more than dense"
    else:
        why = "slower: encoding and latencies cost more than is saved"
    if row.break_even_ratio:
        why += f"; pays up to {_percent(row.break_even_ratio)}"
    return why


def _table(rows: Sequence[Prediction], config: Plan) -> Table:
    shown = Table(
        box=SIMPLE_HEAD,
        title=f"{whole(config.parameters):,} parameters, {config.workers} workers, "
        f"{config.bandwidth} with {config.latency}, {config.step_time} of computation",
        caption="Seconds of a step, in the mean. Link: the share of the time in which "
        "it communicates, and of its capacity that is used. This plans the time of a "
        "step, not the accuracy after it: who sends less may need more steps.",
        title_justify="left",
        caption_justify="left",
    )
    shown.add_column("method")
    for column in ("ratio", "GB out", "encode", "network", "step", "longest", "link"):
        shown.add_column(column, justify="right")
    shown.add_column("against dense")
    dense = _dense(rows)
    for row in rows:
        shown.add_row(
            row.name,
            _percent(row.ratio) if row.ratio else "",
            f"{row.traffic.bytes / 1e9:.3g}",
            *(
                f"{time:.3g}"
                for time in (row.encoding, row.network, row.seconds, row.longest)
            ),
            f"{row.busy:.0%}, {row.utilisation:.0%}",
            verdict(row, dense),
            style="bold" if row is dense else "" if row.breaks_even else "dim",
        )
    return shown


def _in_words(rows: Sequence[Prediction]) -> list[str]:
    """What wins, and where each compressed method breaks even."""
    best, dense = rows[0], _dense(rows)
    if best is dense:
        lines = ["Nothing is faster than the dense all-reduce on this link."]
    else:
        ratio = f" at {_percent(best.ratio)}" if best.ratio else ""
        lines = [
            f"Fastest: {best.name}{ratio}, {best.seconds:.3g} s a step against "
            f"{dense.seconds:.3g} s of the dense all-reduce, {best.speed_up:.3g} times."
        ]
        if not best.name.startswith("GMC"):
            meets = [row for row in rows if row.name.startswith("GMC")][:1]
            lines += [
                f"Fastest of those who meet at every step: {row.name} at "
                f"{_percent(row.ratio or 1)}, {row.seconds:.3g} s."
                for row in meets
                if row.breaks_even
            ]
    ratios = {
        row.name: row.break_even_ratio
        for row in rows
        if row.break_even_ratio is not None
    }
    for name, ratio in ratios.items():
        pays = f"pays up to a ratio of {_percent(ratio)}" if ratio else "never pays"
        links = [
            f"at {_percent(row.ratio or 1)} on {_links(row.faster_between)}"
            for row in rows
            if row.name == name
        ]
        lines.append(f"Break even: {name} {pays}; {', '.join(links)}.")
    return lines


def _links(between: tuple[float, float] | None) -> str:
    """The bandwidths at which something pays, in words."""
    if between is None:
        return "no link"
    low, high = between
    if math.isinf(high):
        return f"links from {_bits(low)}" if low else "any link"
    return f"links up to {_bits(high)}"


def _dense(rows: Sequence[Prediction]) -> Prediction:
    return next(row for row in rows if row.name == gmc_jax.planning.DENSE.name)


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.3g} %"


def _bits(rate: float) -> str:
    """A bandwidth in bits a second, as tc has it."""
    for unit, size in (("gbit", 1e9), ("mbit", 1e6)):
        if 8 * rate >= size:
            return f"{8 * rate / size:.3g} {unit}"
    return f"{8 * rate / 1e3:.3g} kbit"


def _finite(between: tuple[float, float] | None) -> list[float | None] | None:
    if between is None:
        return None
    return [bound if math.isfinite(bound) else None for bound in between]
