"""Timing of candidates that take turns, and the report of it.

A round runs every candidate once, in the same order, so that a machine that slows
down slows all of them. The first rounds are left out (compilation, first touches of
memory), and of the others the median counts. A candidate returns when its result is
there. Before its turn there is a pause, in which the threads that others left spinning
go to sleep.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, TypeAlias

from rich.table import Table

from experiments.training import record
from experiments.training.study import Study, say

Candidate: TypeAlias = Callable[[], Any]

WARM_UP = 2  # rounds
PAUSE = 0.02  # seconds; OpenMP's threads spin for some milliseconds


class Bar(NamedTuple):
    """A ratio of two medians, and where it must lie.

    Attributes:
      above: the candidate above the fraction line.
      below: the candidate below it.
      most: the largest ratio that is good enough, if there is one.
      least: the smallest that is good enough, if there is one.
    """

    above: str
    below: str
    most: float = float("inf")
    least: float = 0.0

    @property
    def required(self) -> str:
        """The bar in words."""
        return f"at least {self.least:g}" if self.least else f"at most {self.most:g}"

    def ratio(self, medians: Mapping[str, float]) -> float:
        """What was measured."""
        return medians[self.above] / medians[self.below]

    def met(self, medians: Mapping[str, float]) -> bool:
        """Whether that is good enough."""
        return self.least <= self.ratio(medians) <= self.most


def take_turns(candidates: Mapping[str, Candidate], repeats: int) -> dict[str, float]:
    """The median seconds of each candidate over `repeats` rounds after the warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(WARM_UP + repeats):
        for name, candidate in candidates.items():
            time.sleep(PAUSE)
            start = time.perf_counter()
            candidate()
            seconds[name].append(time.perf_counter() - start)
    return {name: median(times[WARM_UP:]) for name, times in seconds.items()}


def report(
    path: Path,
    name: str,
    config: record.Row,
    medians: Mapping[str, float],
    bars: Sequence[Bar],
) -> None:
    """Prints the medians, and the bars that all had a candidate for; logs both.

    Args:
      path: the directory of results.
      name: of the benchmark; its log goes to `bench/name-001` or a later number.
      config: what was asked for.
      medians: seconds a candidate; the first one is the unit of the others.
      bars: what is required.
    """
    bars = [bar for bar in bars if {bar.above, bar.below} <= medians.keys()]
    with record.create(path / "bench", name, config) as log:
        for candidate, seconds in medians.items():
            log.append(kind="summary", method=candidate, milliseconds=1000 * seconds)
        for bar in bars:
            log.append(
                kind="bar",
                ratio=f"{bar.above} / {bar.below}",
                measured=bar.ratio(medians),
                required=bar.required,
                met=bar.met(medians),
            )
    STUDY.print(record.read(log.path))
    say(f"Log: {log.path}")


def _tables(rows: Sequence[record.Row]) -> list[Table]:
    medians = {
        row["method"]: row["milliseconds"] for row in rows if row["kind"] == "summary"
    }
    unit, *_ = medians
    times = Table(
        "candidate", title=f"Medians of {rows[0]['config']['repeats']} rounds"
    )
    times.add_column("ms", justify="right")
    times.add_column(f"in units of\n{unit}", justify="right")
    for candidate, milliseconds in medians.items():
        times.add_row(
            candidate, f"{milliseconds:.2f}", f"{milliseconds / medians[unit]:.2f}"
        )
    ratios = Table("ratio", "measured", "required", "met", title="Bars")
    for row in rows:
        if row["kind"] == "bar":
            ratios.add_row(
                row["ratio"],
                f"{row['measured']:.2f}",
                row["required"],
                "yes" if row["met"] else "NO",
            )
    return [times, ratios]


STUDY = Study("summary", "milliseconds", _tables)
