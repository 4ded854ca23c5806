"""Compares Katyusha X with SVRG on the inner problem of a leading eigenvector."""

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

GOAL = 1e-8  # Of the loss above its minimum, relative to the start.
RATES = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)  # The same grid for all methods.


@dataclass(frozen=True)
class PCA:
    """Compare Katyusha X with SVRG on the inner problem of a leading eigenvector."""

    gap: float = 0.01
    """Distance of the shift to the first eigenvalue, over the gap of the first two."""
    workers: int = 16
    """The most workers, a power of two; the methods are compared with half as many."""
    seeds: int = 5
    """The number of problems; each has its own random draws."""
    epochs: int = 1500
    """The most epochs of a trajectory."""
    results: Path = Path("results")
    """The directory of results; this run's is `pca/run-001` or a later one."""

    def __post_init__(self):
        """Refuses numbers out of range."""
        checks.positive_int(workers=self.workers, seeds=self.seeds, epochs=self.epochs)
        checks.positive(gap=self.gap)
        if self.workers & (self.workers - 1) or self.workers > SAMPLES:
            raise ValueError(
                f"`workers` must be a power of two, at most {SAMPLES}, got "
                f"{self.workers}."
            )


def optimizer(
    method: str, rate: float, epoch_length: int, sigma: float
) -> optax.GradientTransformationExtraArgs:
    """Makes a method by its name in `LABELS`."""
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
    """The loss above its minimum after each epoch, relative to the start.

    It stops when this value has fallen to `GOAL` or grown a thousandfold, or after
    `epochs`. Each worker's part of a mini-batch is one sample, drawn with replacement.
    """
    length = SAMPLES // workers
    tx = optimizer(method, rate, length, problem.sigma)
    samples = jnp.asarray(problem.samples)
    optimum = np.linalg.solve(problem.hessian, problem.b)

    def step(state, batch):
        x, opt_state = state
        old = problem.gradient(gmc_jax.svrg_snapshot(opt_state), samples[batch])
        gradient = problem.gradient(x, samples[batch])
        updates, opt_state = tx.update(gradient, opt_state, x, snapshot_grads=old)
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
    """Runs all methods at all rates; records, prints and draws the trajectories."""
    record.prepare(config.results / "pca")
    pairs = {(method, _half(config.workers)) for method in LABELS}
    pairs |= {("katyusha_xs", 2**i) for i in range(config.workers.bit_length())}
    with (
        jax.enable_x64(True),
        record.create(config.results / "pca", "run", asdict(config)) as log,
    ):
        problems = [problem(seed, config.gap) for seed in range(config.seeds)]
        every = [
            (method, rate, workers)
            for method, workers in sorted(pairs)
            for rate in RATES
        ]
        for method, rate, workers in track(every, "trajectories", transient=True):
            trajectories = [
                solve(method, rate, workers, problem, seed, config.epochs)
                for seed, problem in enumerate(problems)
            ]
            log.append(
                kind="walks",
                method=method,
                rate=rate,
                workers=workers,
                gaps=[[float(f"{gap:.3g}") for gap in gaps] for gaps in trajectories],
            )
    STUDY.show(log.path)


def _half(workers: int) -> int:
    """The number of workers with which the methods are compared."""
    return max(1, workers // 2)


Trajectories: TypeAlias = dict[tuple[str, float, int], list[np.ndarray]]


def _trajectories(rows: Sequence[Row]) -> Trajectories:
    return {
        (row["method"], row["rate"], row["workers"]): [
            np.asarray(gaps, float) for gaps in row["gaps"]
        ]
        for row in rows
        if row["kind"] == "walks"
    }


def evaluations(gaps: Sequence[float] | np.ndarray) -> float:
    """Component gradients until the goal; infinite if it is not reached.

    An epoch needs n for the full gradient, and two for each of the n samples in its
    mini-batches.
    """
    return 3 * SAMPLES * (len(gaps) - 1) if gaps[-1] <= GOAL else np.inf


def _best(trajectories: Trajectories, workers: int) -> dict[str, float]:
    """The rate of each method that needs the fewest gradients, averaged over seeds."""

    def needed(one: tuple[str, float, int]) -> float:
        return float(np.mean([evaluations(gaps) for gaps in trajectories[one]]))

    best = {}
    for method in LABELS:
        tried = [one for one in trajectories if (one[0], one[2]) == (method, workers)]
        if tried:
            _, best[method], _ = min(tried, key=needed)
    return best


def _tables(rows: Sequence[Row]) -> Sequence[Table | str]:
    config, trajectories = rows[0]["config"], _trajectories(rows)
    shown = (_compared(trajectories, _half(config["workers"])), _sped_up(trajectories))
    tried = {(method, workers) for method, _, workers in trajectories}
    reached = {
        (method, workers)
        for (method, _, workers), each in trajectories.items()
        if all(evaluations(gaps) < np.inf for gaps in each)
    }
    if tried == reached:
        return shown
    return [
        *shown,
        f"inf: at no rate do all seeds reach the goal in {config['epochs']} epochs. "
        "Use more (`--epochs`).",
    ]


def _compared(trajectories: Trajectories, workers: int) -> Table:
    shown = Table(
        box=SIMPLE_HEAD,
        title=f"Component gradients, in thousands, to {GOAL:g}, {workers} workers",
        caption=f"Until the loss above its minimum is {GOAL:g} of that at the start. "
        "Each method at the best of the rates " + ", ".join(map(str, RATES)),
        title_justify="left",
        caption_justify="left",
    )
    for column in ("method", "rate", "mean", "least", "most", "seeds"):
        shown.add_column(column, justify="left" if column == "method" else "right")
    for method, rate in _best(trajectories, workers).items():
        needed = [
            evaluations(gaps) / 1e3 for gaps in trajectories[method, rate, workers]
        ]
        numbers = (np.mean(needed), min(needed), max(needed))
        shown.add_row(
            LABELS[method],
            f"{rate:g}",
            *(f"{number:,.0f}" for number in numbers),
            str(len(needed)),
        )
    return shown


def _sped_up(trajectories: Trajectories) -> Table:
    shown = Table(
        box=SIMPLE_HEAD,
        title="Katyusha X^s: steps by the number of workers, each at its best rate",
        title_justify="left",
    )
    for column in ("workers", "rate", "steps", "speed-up"):
        shown.add_column(column, justify="right")
    method, single = "katyusha_xs", np.nan
    for count in sorted(
        {workers for name, _, workers in trajectories if name == method}
    ):
        rate = _best(trajectories, count)[method]
        needed = [evaluations(gaps) for gaps in trajectories[method, rate, count]]
        steps = float(np.mean(needed)) / (3 * count)
        single = steps if count == 1 else single
        speed_up = f"{single / steps:.2f}" if np.isfinite(single) else ""
        shown.add_row(str(count), f"{rate:g}", f"{steps:,.0f}", speed_up)
    return shown


def _figures(rows: Sequence[Row]) -> dict[str, Figure]:
    trajectories, workers = _trajectories(rows), _half(rows[0]["config"]["workers"])
    best = _best(trajectories, workers)
    drawn = {
        method: (rate, trajectories[method, rate, workers])
        for method, rate in best.items()
    }
    return {"figure": figures.draw(drawn, workers)}


STUDY = Study("walks", "gaps", _tables, _figures)
