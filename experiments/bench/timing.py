"""Times candidates that take turns, and reports the medians.

A round runs every candidate once, in the same order, so a machine that becomes slower
affects all of them. The first rounds are left out, since they compile and touch memory
for the first time; the median of the other rounds counts. A candidate returns when its
result is computed. A pause before each candidate lets the threads of the previous one
stop spinning.
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
    """A requirement on the ratio of two medians.

    Attributes:
      above: the candidate in the numerator.
      below: the candidate in the denominator.
      most: the largest ratio that is accepted.
      least: the smallest ratio that is accepted.
    """

    above: str
    below: str
    most: float = float("inf")
    least: float = 0.0

    @property
    def required(self) -> str:
        """The requirement in words."""
        return f"at least {self.least:g}" if self.least else f"at most {self.most:g}"

    def ratio(self, medians: Mapping[str, float]) -> float:
        """The measured ratio."""
        return medians[self.above] / medians[self.below]

    def met(self, medians: Mapping[str, float]) -> bool:
        """Whether the measured ratio is accepted."""
        return self.least <= self.ratio(medians) <= self.most


def take_turns(candidates: Mapping[str, Candidate], repeats: int) -> dict[str, float]:
    """Measures the median seconds of each candidate over `repeats` rounds."""
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
    """Logs and prints the medians, and the bars whose candidates were all timed.

    Args:
      path: the directory of all results.
      name: of the benchmark; its directory is `bench/name-001` or a later number.
      config: of the benchmark.
      medians: seconds of each candidate; the first one is the unit of the others.
      bars: the requirements.
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
