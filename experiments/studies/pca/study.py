"""The command `pca`: Katyusha X and SVRG on a leading eigenvector's inner problem."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.progress import track
from rich.table import Table

import gmc_jax
from experiments.studies.pca import figures
from experiments.studies.pca.figures import LABELS
from experiments.studies.pca.problem import SAMPLES, D, Problem, problem
from experiments.training import record
from experiments.training.record import Row
from experiments.training.study import Study
from gmc_jax.utils import checks

GOAL = 1e-8
RATES = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)  # The same grid for all.


@dataclass(frozen=True)
class PCA:
    """Katyusha X and SVRG on a leading eigenvector's inner problem."""

    gap: float = 0.01
    """How far the shift lies above the largest eigenvalue, in gaps to the second."""
    workers: int = 16
    """The most workers, a power of two; the methods are compared with half of them."""
    seeds: int = 5
    """How many problems, each with draws of its own."""
    epochs: int = 1500
    """When to give up."""
    results: Path = Path("results")
    """Where a new directory, `pca/run-001` or a later number, is made."""

    def __post_init__(self):
        """Refuses numbers that make no run."""
        checks.positive_int(workers=self.workers, seeds=self.seeds, epochs=self.epochs)
        checks.positive(gap=self.gap)
        if self.workers & (self.workers - 1) or self.workers > SAMPLES:
            raise ValueError(
                f"`workers` must be a power of two, at most {SAMPLES}, but is "
                f"{self.workers}."
            )


def optimizer(
    method: str, rate: float, epoch_length: int, sigma: float
) -> optax.GradientTransformationExtraArgs:
    """The method by its name in `LABELS`."""
    channel = gmc_jax.exact()
    if method == "svrg":
        return gmc_jax.svrg(rate, channel, epoch_length=epoch_length)
    return gmc_jax.katyusha_x(
        rate,
        channel,
        epoch_length=epoch_length,
        strong_convexity=sigma if method == "katyusha_xs" else None,
    )


def solve(
    method: str, rate: float, workers: int, problem: Problem, seed: int, epochs: int
) -> list[float]:
    """How far the loss is above its least, of what it was at first, epoch by epoch.

    Until it has come down to `GOAL`, has grown a thousandfold, or `epochs` are over.
    Each worker's part of a mini-batch is one sample, drawn with replacement.
    """
    length = SAMPLES // workers
    tx = optimizer(method, rate, length, problem.sigma)
    samples = jnp.asarray(problem.samples)
    optimum = np.linalg.solve(problem.hessian, problem.b)

    def step(state, batch):
        x, opt_state = state
        there = problem.gradient(gmc_jax.svrg_snapshot(opt_state), samples[batch])
        here = problem.gradient(x, samples[batch])
        updates, opt_state = tx.update(here, opt_state, x, snapshot_grads=there)
        return (optax.apply_updates(x, updates), opt_state), 0.0

    start = jnp.zeros(D)
    batch = jnp.zeros((workers, 1), int)
    train, state = gmc_jax.simulate(step, (start, tx.init(start)), batch, workers)

    @jax.jit
    def epoch(state, key):
        x, opt_state = state
        full = problem.gradient(x, samples)
        state = x, gmc_jax.set_full_gradient(opt_state, x, full)
        batches = jax.random.randint(key, (length, workers, 1), 0, SAMPLES)
        state, _ = jax.lax.scan(train, state, batches)
        gap = gmc_jax.evaluate(state[1], state[0], train.layout) - optimum
        return state, gap @ problem.hessian @ gap / 2

    first = optimum @ problem.hessian @ optimum / 2
    gaps = [1.0]
    for number in range(epochs):
        key = jax.random.fold_in(jax.random.key(seed), number)
        state, gap = epoch(state, key)
        gaps.append(float(gap / first))
        if not GOAL < gaps[-1] < 1e3:
            break
    return gaps


def main(config: PCA) -> None:
    """Tunes all methods by one grid; leaves a table, a figure and a log."""
    record.prepare(config.results / "pca")
    asked = {(method, _half(config.workers)) for method in LABELS}
    asked |= {("katyusha_xs", 2**i) for i in range(config.workers.bit_length())}
    with (
        jax.enable_x64(True),
        record.create(config.results / "pca", "run", asdict(config)) as log,
    ):
        problems = [problem(seed, config.gap) for seed in range(config.seeds)]
        every = [
            (method, rate, workers)
            for method, workers in sorted(asked)
            for rate in RATES
        ]
        for method, rate, workers in track(every, "walks", transient=True):
            walks = [
                solve(method, rate, workers, problem, seed, config.epochs)
                for seed, problem in enumerate(problems)
            ]
            log.append(
                kind="walks",
                method=method,
                rate=rate,
                workers=workers,
                gaps=[[float(f"{gap:.3g}") for gap in gaps] for gaps in walks],
            )
    STUDY.show(log.path)


def _half(workers: int) -> int:
    """How many the methods are compared with."""
    return max(1, workers // 2)


Walks: TypeAlias = dict[tuple[str, float, int], list[np.ndarray]]


def _walks(rows: Sequence[Row]) -> Walks:
    return {
        (row["method"], row["rate"], row["workers"]): [
            np.asarray(gaps, float) for gaps in row["gaps"]
        ]
        for row in rows
        if row["kind"] == "walks"
    }


def evaluations(gaps: Sequence[float] | np.ndarray) -> float:
    """Component gradients until the goal; infinite where it was not reached.

    An epoch takes n for the full gradient, and two a sample of its n / b mini-batches.
    """
    return 3 * SAMPLES * (len(gaps) - 1) if gaps[-1] <= GOAL else np.inf


def _best(walks: Walks, workers: int) -> dict[str, float]:
    """Of each method the rate with the fewest gradients in the mean over seeds."""

    def needed(one: tuple[str, float, int]) -> float:
        return float(np.mean([evaluations(walk) for walk in walks[one]]))

    best = {}
    for method in LABELS:
        tried = [one for one in walks if (one[0], one[2]) == (method, workers)]
        if tried:
            _, best[method], _ = min(tried, key=needed)
    return best


def _tables(rows: Sequence[Row]) -> Sequence[Table | str]:
    config, walks = rows[0]["config"], _walks(rows)
    shown = (_compared(walks, _half(config["workers"])), _sped_up(walks))
    tried = {(method, workers) for method, _, workers in walks}
    reached = {
        (method, workers)
        for (method, _, workers), each in walks.items()
        if all(evaluations(gaps) < np.inf for gaps in each)
    }
    if tried == reached:
        return shown
    return [
        *shown,
        f"inf: at no rate reached from every seed within {config['epochs']} epochs.",
    ]


def _compared(walks: Walks, workers: int) -> Table:
    shown = Table(
        box=SIMPLE_HEAD,
        title=f"Component gradients to {GOAL:g}, {workers} workers, in thousands",
        caption="Each method at the best of the rates " + ", ".join(map(str, RATES)),
        title_justify="left",
        caption_justify="left",
    )
    for column in ("method", "rate", "mean", "least", "most", "seeds"):
        shown.add_column(column, justify="left" if column == "method" else "right")
    for method, rate in _best(walks, workers).items():
        needed = [evaluations(walk) / 1e3 for walk in walks[method, rate, workers]]
        numbers = (np.mean(needed), min(needed), max(needed))
        shown.add_row(
            LABELS[method],
            f"{rate:g}",
            *(f"{number:,.0f}" for number in numbers),
            str(len(needed)),
        )
    return shown


def _sped_up(walks: Walks) -> Table:
    shown = Table(
        box=SIMPLE_HEAD,
        title="Katyusha X^s: steps of all workers together, each at its best rate",
        title_justify="left",
    )
    for column in ("workers", "rate", "steps", "speed-up"):
        shown.add_column(column, justify="right")
    method, alone = "katyusha_xs", np.nan
    for count in sorted({workers for name, _, workers in walks if name == method}):
        rate = _best(walks, count)[method]
        needed = [evaluations(walk) for walk in walks[method, rate, count]]
        steps = float(np.mean(needed)) / (3 * count)
        alone = steps if count == 1 else alone
        speed_up = f"{alone / steps:.2f}" if np.isfinite(alone) else ""
        shown.add_row(str(count), f"{rate:g}", f"{steps:,.0f}", speed_up)
    return shown


def _figures(rows: Sequence[Row]) -> dict[str, Figure]:
    walks, workers = _walks(rows), _half(rows[0]["config"]["workers"])
    best = _best(walks, workers)
    drawn = {
        method: (rate, walks[method, rate, workers]) for method, rate in best.items()
    }
    return {"figure": figures.draw(drawn, workers)}


STUDY = Study("walks", "gaps", _tables, _figures)
