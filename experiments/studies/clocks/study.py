"""Measures loss against simulated seconds, with and without stragglers.

All methods train a perceptron on handwritten digits. Parameters and losses are computed
exactly; only the seconds are simulated (`gmc_jax.timelines`), and the speed of this
machine does not matter. All methods share one model of time: a gradient takes its
worker's pace, a message `latency + bytes / bandwidth`.

Where numbers of workers are compared, the learning rate is proportional to the number:
one worker has an eighth of the rate of eight. Only with a larger rate does a step of
more workers make more progress.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import optax
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.progress import Progress
from rich.table import Table

import gmc_jax
from experiments.studies.clocks import figures
from experiments.studies.clocks.trajectories import Curve, asynchronous, synchronous
from experiments.studies.digits_problem import problem
from experiments.training import record
from experiments.training.record import Row
from experiments.training.study import Study
from gmc_jax import paces, timelines, topologies
from gmc_jax.utils import checks

PERIOD = 12  # Of local SGD.
METHODS = ("all_reduce", "local_sgd", "d_psgd", "a_psgd", "ad_psgd")
SCALED = ("all_reduce", "a_psgd", "ad_psgd")  # From one worker to sixteen.


@dataclass(frozen=True)
class Clocks:
    """Measure loss against simulated seconds, with and without stragglers."""

    workers: int = 8
    """The number of workers, which must be even."""
    gradients: int = 250
    """Gradients of each worker, on average."""
    learning_rate: float = 0.1
    """The constant learning rate of all methods with this number of workers.
    The server of A-PSGD divides it by the number."""
    slowdowns: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0)
    """The factors by which one worker is slower than the others."""
    pace: float = 0.1
    """Seconds that a worker takes to compute a gradient."""
    spread: float = 0.1
    """The standard deviation of the logarithm of these seconds."""
    latency: float = 1e-3
    """Seconds before a message arrives."""
    bandwidth: float = 125e6
    """Bytes a second of each worker's link, and of the server's."""
    goal: float = 0.1
    """The training loss to reach."""
    seed: int = 0
    """The seed of shares, batches, parameters, paces and neighbours."""
    results: Path = Path("results")
    """The directory of results; this run's is `clocks/run-001` or a later one."""

    def __post_init__(self):
        """Refuses numbers out of range."""
        checks.positive_int(workers=self.workers, gradients=self.gradients)
        checks.positive(learning_rate=self.learning_rate, pace=self.pace)
        checks.positive(bandwidth=self.bandwidth, goal=self.goal)
        checks.nonnegative(spread=self.spread, latency=self.latency)
        checks.nonnegative_int(seed=self.seed)
        if not self.slowdowns:
            raise ValueError("`slowdowns` must name at least one, such as 1.")
        for slowdown in self.slowdowns:
            checks.positive(slowdowns=slowdown)
        if self.workers > 1 and self.workers % 2:
            raise ValueError(
                "`workers` must be even, since AD-PSGD divides its ring into active "
                f"and passive workers, got {self.workers}."
            )


def follow(method: str, config: Clocks, workers: int, slowdown: float) -> Curve:
    """Trains with a method in `METHODS`; one worker is slower than the others."""
    rate = config.learning_rate * workers / config.workers
    steps = round(config.gradients * max(1, config.workers / workers))
    total = steps * workers
    digits = problem(workers, steps, config.seed)
    size = gmc_jax.message_bits(gmc_jax.exact(), digits.params) / 8
    link = timelines.Link(config.latency, config.bandwidth)
    pace = paces.random(workers, steps, config.spread, config.pace, config.seed)
    pace[0] *= slowdown
    ring = topologies.ring(workers)
    if method == "a_psgd":
        events = timelines.server_events(pace, total, size, link)
        tx = gmc_jax.a_psgd(
            optax.sgd(rate / workers), gradient=digits.gradient, workers=workers
        )
        return asynchronous(tx, digits, events, workers)
    if method == "ad_psgd":
        events = timelines.neighbour_events(
            pace, total, size, link, ring, seed=config.seed
        )
        tx = gmc_jax.ad_psgd(optax.sgd(rate), gradient=digits.gradient, workers=workers)
        return asynchronous(tx, digits, events, workers)
    if method == "d_psgd":
        times = timelines.gossip_times(pace, steps, size, link, ring)
        return synchronous(gmc_jax.d_psgd(rate, ring), digits, times, workers)
    period = PERIOD if method == "local_sgd" else 1
    times = timelines.all_reduce_times(pace, steps, size, link, period=period)
    tx = gmc_jax.local_sgd(rate, gmc_jax.exact(), period=period)
    return synchronous(tx, digits, times, workers)


def main(config: Clocks) -> None:
    """Trains with all methods; records, prints and draws the losses."""
    record.prepare(config.results / "clocks")
    numbers = [2**i for i in range(5)]
    trainings = [
        (method, config.workers, slowdown)
        for slowdown in config.slowdowns
        for method in METHODS
    ]
    trainings += [(method, workers, 1.0) for workers in numbers for method in SCALED]
    trainings = list(dict.fromkeys(trainings))
    with (
        record.create(config.results / "clocks", "run", asdict(config)) as log,
        Progress(transient=True) as progress,
    ):
        task = progress.add_task(f"{len(trainings)} trainings", total=len(trainings))
        for method, workers, slowdown in trainings:
            curve = follow(method, config, workers, slowdown)
            log.append(
                kind="curve",
                method=method,
                workers=workers,
                slowdown=slowdown,
                to_goal=curve.reaches(config.goal),
                seconds=[float(f"{x:.5g}") for x in curve.seconds],
                losses=[float(f"{x:.5g}") for x in curve.losses],
            )
            progress.advance(task)
    STUDY.show(log.path)


Curves: TypeAlias = dict[tuple[str, int, float], Curve]


def _curves(rows: Sequence[Row]) -> Curves:
    return {
        (row["method"], row["workers"], row["slowdown"]): Curve(
            np.asarray(row["seconds"], float), np.asarray(row["losses"], float)
        )
        for row in rows
        if row["kind"] == "curve"
    }


def _tables(rows: Sequence[Row]) -> list[Table | str]:
    config, curves = rows[0]["config"], _curves(rows)
    shown: list[Table | str] = [
        _stragglers(curves, config),
        _speed_up(curves, config["goal"]),
    ]
    if not all(np.isfinite(each.reaches(config["goal"])) for each in curves.values()):
        shown.append(
            f"inf: a loss of {config['goal']:g} was not reached within "
            f"{config['gradients']} gradients of each worker. Use more (`--gradients`) "
            "or another goal (`--goal`)."
        )
    return shown


def _stragglers(curves: Curves, config: Row) -> Table:
    shown = Table(
        box=SIMPLE_HEAD,
        title=f"Simulated seconds to a training loss of {config['goal']:g}",
        caption="The factor at the top is how much slower one worker is.",
        title_justify="left",
        caption_justify="left",
    )
    shown.add_column("method")
    for slowdown in config["slowdowns"]:
        shown.add_column(f"{slowdown:g}", justify="right")
    for method in METHODS:
        cells = (
            _seconds(curves, (method, config["workers"], slowdown), config["goal"])
            for slowdown in config["slowdowns"]
        )
        shown.add_row(figures.LABELS[method], *cells)
    return shown


def _speed_up(curves: Curves, goal: float) -> Table:
    shown = Table(
        box=SIMPLE_HEAD,
        title="Without a straggler: seconds to the same loss, and the speed-up",
        title_justify="left",
    )
    shown.add_column("workers", justify="right")
    for method in SCALED:
        shown.add_column(figures.LABELS[method], justify="right")
        shown.add_column("speed-up", justify="right")
    counts = {workers for method, workers, slow in curves if slow == 1}
    for workers in sorted(counts):
        cells = [str(workers)]
        for method in SCALED:
            one, many = ((method, count, 1.0) for count in (1, workers))
            speed_up = ""
            if one in curves and many in curves:
                single, now = (curves[each].reaches(goal) for each in (one, many))
                speed_up = f"{single / now:.2f}" if np.isfinite(single) else ""
            cells += [_seconds(curves, many, goal), speed_up]
        shown.add_row(*cells)
    return shown


def _seconds(curves: Curves, place: tuple[str, int, float], goal: float) -> str:
    """A cell of a table; empty if this training is missing."""
    return f"{curves[place].reaches(goal):.1f}" if place in curves else ""


def _figures(rows: Sequence[Row]) -> dict[str, Figure]:
    return {"figure": figures.draw(_curves(rows), rows[0]["config"])}


STUDY = Study("curve", "slowdown", _tables, _figures)
