"""The theory of GMC and GMC+ in numbers: residual, virtual iterate and rate.

What Lemmas 4, 5, 9 and 11 and Theorems 6 and 12 of the GMC paper bound is measured here
on walks over one regression. The published constants were not at hand: the bound of the
residual is derived in `residuals.residual_bound`, and of the others the order is
checked, not the constant. Everything is in double precision.

The rate is c sqrt(K / T). Then two parts of the mean of |grad f(w_t)|^2 fall as
1 / sqrt(K T): (1 - b) (f(w_0) - f(w_T)) / (lr T), which is the descent from the start,
and what the noise adds, of order lr / K. The rest, which the residual and the finite
rate are to blame for, falls as K / T, so the theorems ask for a T that is large against
K^3. All steps count, from the first on; c is such that the noise adds more than the
descent, and T such that the rest is small.
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
from experiments.studies.theory.claims import Claim, Plan
from experiments.studies.theory.figures import draw
from experiments.studies.theory.trajectories import (
    MOMENTUM,
    Setting,
    Walk,
    follow,
    problem,
)
from experiments.training import record
from experiments.training.record import Row
from experiments.training.study import Study
from gmc_jax.utils import checks


@dataclass(frozen=True)
class Theory:
    """The theory of GMC and GMC+ in numbers: residual, virtual iterate and rate."""

    steps: int = 16_000
    """Steps of the longest walk of several workers; one takes four times as many, and
    the walks for the residual and for the gap are an eighth as long."""
    workers: int = 16
    """The most workers, a power of two; half of them where their number is fixed."""
    seeds: int = 16
    """How many walks an expectation is the mean of."""
    results: Path = Path("results")
    """Where a new directory, `theory/run-001` or a later number, is made."""

    def __post_init__(self):
        """Refuses numbers that make no walk."""
        checks.positive_int(steps=self.steps, workers=self.workers, seeds=self.seeds)


def main(config: Theory) -> None:
    """Takes all walks; leaves a table, a figure and a log."""
    plan = claims.plan(config.steps, config.workers)
    record.prepare(config.results / "theory")
    settings = asdict(config) | {"momentum": MOMENTUM, "scale": claims.SCALE}
    walks = {}
    with (
        record.create(config.results / "theory", "run", settings) as log,
        Progress(transient=True) as progress,
    ):
        total = sum(setting.steps for setting in plan.settings)
        task = progress.add_task(f"{total:,} steps", total=total)
        for setting in plan.settings:
            walks[setting] = walk = follow(setting, problem(), config.seeds)
            met = {name: value.tolist() for name, value in walk._asdict().items()}
            log.append(kind="walk", **setting._asdict(), **met)
            progress.advance(task, setting.steps)
        for claim in claims.claims(plan, walks):
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


def _walks(rows: Sequence[Row]) -> tuple[Plan, dict[Setting, Walk]]:
    """What was planned, and all walks of it.

    Raises:
      ValueError: if some are missing.
    """
    config = rows[0]["config"]
    plan = claims.plan(config["steps"], config["workers"])
    walks = {
        Setting(*(row[name] for name in Setting._fields)): Walk(
            *(np.asarray(row[name], float) for name in Walk._fields)
        )
        for row in rows
        if row["kind"] == "walk"
    }
    missing = len(set(plan.settings) - walks.keys())
    if missing:
        raise ValueError(
            f"{missing} of {len(plan.settings)} walks are missing, and what is claimed "
            "is of all of them. Run the study again."
        )
    return plan, walks


def _tables(rows: Sequence[Row]) -> list[Table]:
    plan, walks = _walks(rows)
    return [table(plan, claims.claims(plan, walks))]


def _figures(rows: Sequence[Row]) -> dict[str, Figure]:
    return {"figure": draw(*_walks(rows))}


def table(plan: Plan, claimed: Sequence[Claim]) -> Table:
    """One line a claim, under what is claimed."""
    last = next(iter(plan.long.values()))[-1]
    shown = Table(
        "",
        title="The theory of GMC and GMC+",
        caption=(
            "The published constants were not at hand. The residual's bound is ours, "
            "4 (1 - delta) / delta^2 times the largest E|a|^2 of what enters the error "
            "feedback; of the others the order is checked, not the constant. "
            "|grad f|^2 is the mean over all T steps at the rate "
            f"{claims.SCALE} sqrt(K / T). Where they are fixed, K = "
            f"{last.workers} and T = {last.steps}. Behind ± is the standard deviation "
            "between seeds."
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
