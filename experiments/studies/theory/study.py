"""Checks the theory of GMC and GMC+: residual, virtual iterate and rate.

It measures what Lemmas 4, 5, 9 and 11 and Theorems 6 and 12 of the GMC paper bound, on
trajectories of one regression. The published constants were not available. So the bound
of the residual is derived in `residuals.residual_bound`; for the other claims the order
is checked, not the constant. Everything is in double precision.

The learning rate is c sqrt(K / T). Two parts of the mean of |grad f(w_t)|^2 then fall
as 1 / sqrt(K T): the descent from the start, (1 - b) (f(w_0) - f(w_T)) / (lr T), and
the noise, of order lr / K. The rest comes from the residual and the finite rate. It
falls as K / T, so the theorems need a T that is large against K^3. All steps count,
from the first one. The constant c is such that the noise is larger than the descent,
and T is such that the rest is small.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.progress import Progress
from rich.table import Table

from experiments.studies.theory import claims
from experiments.studies.theory.claims import Claim, Sweep
from experiments.studies.theory.figures import draw
from experiments.studies.theory.trajectories import (
    MOMENTUM,
    Setting,
    Trajectory,
    follow,
    problem,
)
from experiments.training import record
from experiments.training.record import Row
from experiments.training.study import Study
from gmc_jax.utils import checks

_RENAMED = {"identity": "dense"}  # Compressors under the names in older logs.


@dataclass(frozen=True)
class Theory:
    """Check the theory of GMC and GMC+: residual, virtual iterate and rate."""

    steps: int = 16_000
    """Steps of the longest trajectory of several workers.
    One worker takes four times as many; the residual and the gap, an eighth."""
    workers: int = 16
    """The most workers, a power of two; where K is fixed, it is half of this."""
    seeds: int = 16
    """The number of seeds over which expectations are averaged."""
    results: Path = Path("results")
    """The directory of results; this run's is `theory/run-001` or a later one."""

    def __post_init__(self):
        """Refuses numbers out of range."""
        checks.positive_int(steps=self.steps, workers=self.workers, seeds=self.seeds)


def main(config: Theory) -> None:
    """Computes all trajectories; records, prints and draws the claims."""
    sweep = claims.sweep(config.steps, config.workers)
    record.prepare(config.results / "theory")
    settings = asdict(config) | {"momentum": MOMENTUM, "scale": claims.SCALE}
    trajectories = {}
    with (
        record.create(config.results / "theory", "run", settings) as log,
        Progress(transient=True) as progress,
    ):
        total = sum(setting.steps for setting in sweep.settings)
        task = progress.add_task(f"{total:,} steps", total=total)
        for setting in sweep.settings:
            trajectory = follow(setting, problem(), config.seeds)
            trajectories[setting] = trajectory
            columns = {name: x.tolist() for name, x in trajectory._asdict().items()}
            log.append(kind="walk", **setting._asdict(), **columns)
            progress.advance(task, setting.steps)
        for claim in claims.claims(sweep, trajectories):
            log.append(
                kind="claim",
                claim=claim.claim,
                of=claim.of,
                measured=claim.measured,
                spread=claim.spread,
                required=claim.required,
                met=claim.met,
            )
    STUDY.show(log.path)


def _read(rows: Sequence[Row]) -> tuple[Sweep, dict[Setting, Trajectory]]:
    """The sweep of a record, and all its trajectories.

    Raises:
      ValueError: if trajectories are missing.
    """
    config = rows[0]["config"]
    sweep = claims.sweep(config["steps"], config["workers"])
    trajectories = {}
    for row in rows:
        if row["kind"] == "walk":
            setting = Setting(*(row[name] for name in Setting._fields))
            current = _RENAMED.get(setting.compressor, setting.compressor)
            trajectories[setting._replace(compressor=current)] = Trajectory(
                *(np.asarray(row[name], float) for name in Trajectory._fields)
            )
    missing = len(set(sweep.settings) - trajectories.keys())
    if missing:
        raise ValueError(
            f"{missing} of {len(sweep.settings)} trajectories are missing, and the "
            "claims need all of them. Run the study again."
        )
    return sweep, trajectories


def _tables(rows: Sequence[Row]) -> list[Table]:
    sweep, trajectories = _read(rows)
    return [table(sweep, claims.claims(sweep, trajectories))]


def _figures(rows: Sequence[Row]) -> dict[str, Figure]:
    return {"figure": draw(*_read(rows))}


def table(sweep: Sweep, claimed: Sequence[Claim]) -> Table:
    """A table with a line for each method or compressor, grouped by claim."""
    last = next(iter(sweep.long.values()))[-1]
    shown = Table(
        "",
        title="The theory of GMC and GMC+",
        caption=(
            "The published constants were not available. The bound of the residual is "
            "ours, 4 (1 - delta) / delta^2 times the largest E|a|^2 of the input of "
            "the error feedback. For the other claims the order is checked, not the "
            "constant. |grad f|^2 is the mean over all T steps at the rate "
            f"{claims.SCALE} sqrt(K / T). Unless they vary, K = {last.workers} and T = "
            f"{last.steps}. ± is the standard deviation between seeds."
        ),
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
    )
    for name in ("measured", "required", "met"):
        shown.add_column(name, justify="right", no_wrap=True)
    for claim, those in groupby(claimed, lambda each: each.claim):
        shown.add_row(claim, style="bold")
        for each in those:
            met = "yes" if each.met else "NO"
            shown.add_row(f"  {each.of}", each.shown, each.required, met)
    return shown


STUDY = Study("walk", "gradient", _tables, _figures)
