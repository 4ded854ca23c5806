"""The command `plan`: what a step would take over a link, before anybody trains.

It plans the time of a step, not what a step is worth: how many more of them a method
needs where it sends less, `python -m experiments run` shows on problems that fit here.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from matplotlib.figure import Figure
from rich.table import Table

import gmc_jax
from experiments.studies.plan import figures, tables
from experiments.training import record
from experiments.training.record import Row
from experiments.training.study import Study
from experiments.utils.units import bytes_per_second, seconds, whole
from gmc_jax.clocks.link import Link
from gmc_jax.costs.compression_cost import (
    CPU_2_CORES,
    CompressionCost,
    CompressionCosts,
)
from gmc_jax.costs.planning import DENSE, Prediction
from gmc_jax.utils import checks

_ENDLESS = 1e100  # Seconds, beyond which no figure has an axis.


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
        workers = whole(str(self.workers)) if self.workers > 0 else self.workers
        checks.positive_int(workers=workers, parameters=whole(self.parameters))
        checks.positive(step_time=seconds(self.step_time))
        checks.nonnegative(latency=self.link.latency)

    @property
    def link(self) -> Link:
        """What is asked about."""
        return Link(seconds(self.latency), bytes_per_second(self.bandwidth))


def main(config: Plan) -> None:
    """Plans; leaves a table, a figure and a log."""
    encodings = gmc_jax.measure_encodings() if config.measure else CPU_2_CORES
    predictions = gmc_jax.plan(
        whole(config.parameters),
        config.workers,
        config.link,
        seconds(config.step_time),
        ratios=config.ratios,
        periods=config.periods,
        encodings=encodings,
    )
    slowest = max(row.longest for row in predictions)
    if slowest > _ENDLESS:
        raise ValueError(
            f"a step would take {slowest:.0e} seconds on {config.bandwidth} with "
            f"{config.latency}. Name a link that is faster."
        )
    record.prepare(config.results / "plan")
    with record.create(config.results / "plan", "run", asdict(config)) as log:
        if config.measure:
            log.append(kind="encodings", measured=_measured(encodings))
        for row in predictions:
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
                faster_between=row.faster_between,
                break_even_ratio=row.break_even_ratio,
            )
    STUDY.show(log.path)


def _measured(encodings: CompressionCosts) -> Row:
    """As JSON has them, whose names are strings."""
    return {
        name: {str(ratio): list(encoding) for ratio, encoding in of_each.items()}
        for name, of_each in encodings.items()
    }


def _encodings(rows: Sequence[Row]) -> CompressionCosts:
    for row in rows:
        if row["kind"] == "encodings":
            return {
                name: {
                    float(ratio): CompressionCost(*costs)
                    for ratio, costs in each.items()
                }
                for name, each in row["measured"].items()
            }
    return CPU_2_CORES


def _predictions(rows: Sequence[Row]) -> list[Prediction]:
    return [
        Prediction(
            name=row["method"],
            ratio=row["ratio"],
            traffic=gmc_jax.Traffic(row["bytes"], row["hops"]),
            compute=row["compute"],
            encoding=row["encoding"],
            network=row["network"],
            longest=row["longest"],
            utilisation=row["utilisation"],
            speed_up=row["speed_up"],
            faster_between=_bounds(row["faster_between"]),
            break_even_ratio=row["break_even_ratio"],
        )
        for row in rows
        if row["kind"] == "prediction"
    ]


def _bounds(between: Sequence[float | None] | None) -> tuple[float, float] | None:
    """From a log, in which what is infinite is None."""
    if between is None:
        return None
    low, high = (math.inf if bound is None else bound for bound in between)
    return low, high


def _tables(rows: Sequence[Row]) -> list[Table | str]:
    predictions, config = _predictions(rows), rows[0]["config"]
    if not any(row.name == DENSE.name for row in predictions):
        raise ValueError("the plan is not whole: the dense one is missing. Plan again.")
    return [
        tables.times(predictions, _title(config)),
        tables.of_the_link(predictions),
        *tables.in_words(predictions),
    ]


def _figures(rows: Sequence[Row]) -> dict[str, Figure]:
    config = rows[0]["config"]
    link = Link(seconds(config["latency"]), bytes_per_second(config["bandwidth"]))
    figure = figures.draw(
        whole(config["parameters"]),
        config["workers"],
        link,
        seconds(config["step_time"]),
        _encodings(rows),
        _title(config),
    )
    return {"figure": figure}


def _title(config: Row) -> str:
    return (
        f"{whole(config['parameters']):,} parameters, {config['workers']} workers, "
        f"{config['bandwidth']} with {config['latency']}, {config['step_time']} of "
        "computation"
    )


STUDY = Study("prediction", "hops", _tables, _figures)
