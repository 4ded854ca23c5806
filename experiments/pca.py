"""The command `pca`: Katyusha X and SVRG on a leading eigenvector's inner problem."""

from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

import gmc_jax
from experiments import record
from experiments.pca_problem import SAMPLES, D, Problem, problem
from experiments.plot import tidy
from gmc_jax import checks

GOAL = 1e-8
RATES = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)  # The same grid for all.
LABELS = {"svrg": "SVRG", "katyusha_xs": "Katyusha X^s", "katyusha_xw": "Katyusha X^w"}
LOOKS = {"svrg": "#999999", "katyusha_xs": "#0072B2", "katyusha_xw": "#56B4E9"}


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
        checks.positive(workers=self.workers, seeds=self.seeds, epochs=self.epochs)
        checks.magnitude(gap=self.gap)
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
        there = problem.gradient(gmc_jax.snapshot(opt_state), samples[batch])
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
    record.prepare(config.results)
    half = max(1, config.workers // 2)
    fewer = [2**i for i in range(config.workers.bit_length())]
    asked = {(method, half) for method in LABELS}
    asked |= {("katyusha_xs", workers) for workers in fewer}
    walks: dict[tuple[str, float, int], list[list[float]]] = {}
    with (
        jax.enable_x64(True),
        record.create(config.results / "pca", "run", asdict(config)) as log,
    ):
        problems = [problem(seed, config.gap) for seed in range(config.seeds)]

        def walk(method: str, rate: float, workers: int) -> None:
            walks[method, rate, workers] = [
                solve(method, rate, workers, problem, seed, config.epochs)
                for seed, problem in enumerate(problems)
            ]
            log.append(
                kind="walks",
                method=method,
                rate=rate,
                workers=workers,
                gaps=[
                    [float(f"{gap:.3g}") for gap in gaps]
                    for gaps in walks[method, rate, workers]
                ],
            )

        every = [
            (method, rate, workers)
            for method, workers in sorted(asked)
            for rate in RATES
        ]
        for one in track(every, "walks", transient=True):
            walk(*one)
        best = {method: _best(method, half, walks) for method in LABELS}
        _draw(best, half, walks).savefig(log.path / "figure.png")
        console = Console()
        console.print(_compared(best, half, walks))
        console.print(_sped_up(fewer, walks))
        console.print(f"Figure and log: {log.path}")


Walks = dict[tuple[str, float, int], list[list[float]]]


def evaluations(gaps: list[float]) -> float:
    """Component gradients until the goal; infinite where it was not reached.

    An epoch takes n for the full gradient, and two a sample of its n / b mini-batches.
    """
    return 3 * SAMPLES * (len(gaps) - 1) if gaps[-1] <= GOAL else np.inf


def _best(method: str, workers: int, walks: Walks) -> float:
    """The rate with the fewest gradients in the mean over seeds."""

    def needed(rate: float) -> float:
        return float(np.mean([evaluations(w) for w in walks[method, rate, workers]]))

    return min(RATES, key=needed)


def _compared(best: dict[str, float], workers: int, walks: Walks) -> Table:
    shown = Table(
        box=SIMPLE_HEAD,
        title=f"Component gradients to {GOAL:g}, {workers} workers, in thousands",
        caption="Each method at the best of the rates " + ", ".join(map(str, RATES)),
        title_justify="left",
        caption_justify="left",
    )
    for column in ("method", "rate", "mean", "least", "most", "seeds"):
        shown.add_column(column, justify="left" if column == "method" else "right")
    for method, rate in best.items():
        needed = [evaluations(walk) / 1e3 for walk in walks[method, rate, workers]]
        numbers = (np.mean(needed), min(needed), max(needed))
        shown.add_row(
            LABELS[method],
            f"{rate:g}",
            *(f"{number:,.0f}" for number in numbers),
            str(len(needed)),
        )
    return shown


def _sped_up(workers: list[int], walks: Walks) -> Table:
    shown = Table(
        box=SIMPLE_HEAD,
        title="Katyusha X^s: steps of all workers together, each at its best rate",
        title_justify="left",
    )
    for column in ("workers", "rate", "steps", "speed-up"):
        shown.add_column(column, justify="right")

    def steps(count: int) -> float:
        rate = _best("katyusha_xs", count, walks)
        needed = [evaluations(walk) for walk in walks["katyusha_xs", rate, count]]
        return float(np.mean(needed)) / (3 * count)

    for count in workers:
        shown.add_row(
            str(count),
            f"{_best('katyusha_xs', count, walks):g}",
            f"{steps(count):,.0f}",
            f"{steps(1) / steps(count):.2f}",
        )
    return shown


def _draw(best: dict[str, float], workers: int, walks: Walks) -> Figure:
    figure = Figure(figsize=(5, 3.2), dpi=200, layout="constrained")
    panel = figure.subplots()
    for method, rate in best.items():
        for number, gaps in enumerate(walks[method, rate, workers]):
            needed = 3 * SAMPLES * np.arange(len(gaps))
            label = f"{LABELS[method]}, rate {rate:g}" if not number else None
            panel.plot(needed, gaps, color=LOOKS[method], lw=0.9, label=label)
    panel.set(yscale="log", xlabel="component gradients", ylabel="loss above least")
    tidy(panel)
    panel.legend(frameon=False)
    return figure
