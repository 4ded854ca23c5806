"""Predicts the time of a step over a link, and of a training, without training.

Seconds a step are not progress. Given the number of steps, it also says how often a
method sends every entry and how long news lags, and whether that is safe.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from matplotlib.figure import Figure
from rich.table import Table
from rich.text import Text

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
from gmc_jax.costs.expressions import Optimizer
from gmc_jax.costs.planning import DENSE, Prediction, Worth
from gmc_jax.utils import checks

_ENDLESS = 1e100  # Seconds; an axis of a figure cannot show more.


@dataclass(frozen=True)
class Plan:
    """Predict the time of a training over a link: which methods and ratios pay."""

    parameters: str = "1e9"
    """The number of float32 parameters of the model."""
    workers: int = 64
    """The number of workers."""
    bandwidth: str = "1gbit"
    """The bandwidth of each worker's link in each direction.
    Units: 100mbit, 1gbit, 12.5mbps (bytes), unshaped."""
    latency: str = "20ms"
    """The latency of a message: 20ms, 500us, 0.1s."""
    step_time: str = "0.5s"
    """The time of a step's computation."""
    steps: int | None = None
    """The steps of the training, to judge what each method can be worth in it."""
    optimizer: Optimizer = "sgd"
    """The optimizer that methods are written over: sgd, with momentum, or adam."""
    ratios: tuple[float, ...] = (0.1, 0.01, 0.001)
    """The shares of the entries that messages hold."""
    periods: tuple[int, ...] = (12, 48)
    """Steps from one synchronisation of local methods to the next."""
    measure: bool = False
    """Whether to time the compressors on this device, for a few minutes.
    If not, their times on two CPU cores count, longer than on any accelerator."""
    results: Path = Path("results")
    """The directory of results; this run's is `plan/run-001` or a later one."""

    def __post_init__(self):
        """Refuses values out of range."""
        workers = whole(str(self.workers)) if self.workers > 0 else self.workers
        checks.positive_int(workers=workers, parameters=whole(self.parameters))
        checks.positive(step_time=seconds(self.step_time))
        if self.steps is not None:
            checks.positive_int(steps=self.steps)
        checks.nonnegative(latency=self.link.latency)

    @property
    def link(self) -> Link:
        """The link to plan for."""
        return Link(seconds(self.latency), bytes_per_second(self.bandwidth))


def main(config: Plan) -> None:
    """Predicts; records, prints and draws the predictions."""
    compression_costs = gmc_jax.measure_encodings() if config.measure else CPU_2_CORES
    predictions = gmc_jax.plan(
        whole(config.parameters),
        config.workers,
        config.link,
        seconds(config.step_time),
        ratios=config.ratios,
        periods=config.periods,
        compression_costs=compression_costs,
        steps=config.steps,
        optimizer=config.optimizer,
    )
    slowest = max(row.longest for row in predictions)
    if slowest > _ENDLESS:
        raise ValueError(
            f"a step would take {slowest:.0e} seconds on {config.bandwidth} with "
            f"{config.latency}. Give a faster link."
        )
    record.prepare(config.results / "plan")
    with record.create(config.results / "plan", "run", asdict(config)) as log:
        if config.measure:
            log.append(kind="encodings", measured=_measured(compression_costs))
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
                hidden=row.hidden,
                peak=row.peak,
                expression=row.expression,
                worth=row.worth._asdict() if row.worth else None,
            )
    STUDY.show(log.path)


def _measured(compression_costs: CompressionCosts) -> Row:
    """Converts costs for JSON, whose keys are strings."""
    return {
        name: {str(ratio): list(encoding) for ratio, encoding in of_each.items()}
        for name, of_each in compression_costs.items()
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
            hidden=row.get("hidden", 0.0),  # Older logs have neither.
            peak=row.get("peak", math.nan),
            expression=row.get("expression", ""),
            worth=Worth(**row["worth"]) if row.get("worth") else None,
        )
        for row in rows
        if row["kind"] == "prediction"
    ]


def _bounds(between: Sequence[float | None] | None) -> tuple[float, float] | None:
    """Reads bounds from a log, in which None stands for infinity."""
    if between is None:
        return None
    low, high = (math.inf if bound is None else bound for bound in between)
    return low, high


def _tables(rows: Sequence[Row]) -> list[Table | Text | str]:
    predictions, config = _predictions(rows), rows[0]["config"]
    if not any(row.name == DENSE.name for row in predictions):
        raise ValueError(
            "the log has no prediction of the dense all-reduce. Run `plan` again."
        )
    title, steps = _title(config), config.get("steps")
    return [
        *(tables.of_the_training(predictions, steps) if steps else []),
        tables.times(predictions, title),
        tables.of_the_link(predictions),
        *tables.in_words(predictions),
        tables.in_python(predictions),
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
        "computation" + (f", {config['steps']:,} steps" if config.get("steps") else "")
    )


STUDY = Study("prediction", "hops", _tables, _figures)
