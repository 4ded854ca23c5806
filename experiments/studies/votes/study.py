"""Trains with faulty workers, and counts how often majority votes err.

Seven workers train a perceptron on handwritten digits. Up to three of them are faulty:
they send ten times their gradient with the opposite sign. The gradients are averaged,
or their signs are put to a majority vote.

The second part has no training. Each worker has the true gradient plus unimodal
symmetric noise. For several numbers of workers, it counts the entries in which the vote
has not the sign of the true gradient, and those in which the mean has not.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.progress import track
from rich.table import Table

import gmc_jax
from experiments.data.datasets import digits
from experiments.models.networks import MODELS
from experiments.studies.digits_problem import BATCH, problem
from experiments.training import record
from experiments.training.plot import entitle, tidy
from experiments.training.record import Row
from experiments.training.study import Study
from gmc_jax.utils import checks

SHOUT = 10.0  # The factor of a faulty worker's gradient.
COUNTS = (1, 3, 5, 9, 17, 33, 65)
ENTRIES = 20_000
METHODS = {"mean": "SGD, mean", "vote": "signSGD, vote"}


@dataclass(frozen=True)
class Votes:
    """Train with faulty workers, and count how often majority votes err."""

    steps: int = 300
    """Steps of each training."""
    workers: int = 7
    """The number of workers, which must be odd."""
    liars: int = 3
    """The most faulty workers: they send ten times their gradient, sign flipped."""
    learning_rate: float = 0.05
    """The constant learning rate of SGD on the mean."""
    sign_rate: float = 1e-3
    """The learning rate of signSGD at the start; it falls linearly to 0."""
    noise: float = 3.0
    """The standard deviation of the noise, relative to the gradient's entries."""
    seeds: int = 3
    """The number of trainings, and of draws of noise, that are averaged."""
    results: Path = Path("results")
    """The directory of results; this run's is `votes/run-001` or a later one."""

    def __post_init__(self):
        """Refuses numbers out of range."""
        checks.positive_int(steps=self.steps, workers=self.workers, seeds=self.seeds)
        checks.nonnegative_int(liars=self.liars)
        checks.positive(
            learning_rate=self.learning_rate,
            sign_rate=self.sign_rate,
            noise=self.noise,
        )
        if self.workers % 2 == 0:
            raise ValueError(
                f"`workers` must be odd, since votes could be tied, got {self.workers}."
            )
        if self.liars >= self.workers:
            raise ValueError(
                f"`liars` must be less than {self.workers}, the number of workers, got "
                f"{self.liars}; one worker must be honest."
            )


def train(method: str, liars: int, seed: int, config: Votes) -> float:
    """Trains with some faulty workers, and returns the test accuracy at the end."""
    training = problem(config.workers, config.steps, seed)
    tx = gmc_jax.dmsgd(config.learning_rate, gmc_jax.exact(), momentum=0.0)
    if method == "vote":
        falling = optax.linear_schedule(config.sign_rate, 0.0, config.steps)
        tx = gmc_jax.sign_sgd(falling, gmc_jax.majority_vote())

    def step(state, batch):
        params, opt_state = state
        samples, worker = batch
        _, grads = training.gradient(params, samples)
        factor = jnp.where(worker < liars, -SHOUT, 1.0)
        grads = jax.tree.map(lambda g: factor * g, grads)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), {}

    workers = jnp.arange(config.workers)
    start = training.params, tx.init(training.params)
    first = training.batch(workers, 0), workers
    run, state = gmc_jax.simulate(step, start, first, config.workers)

    @jax.jit
    def all_steps(state):
        def advance(state, count):
            return run(state, (training.batch(workers, count), workers))[0], None

        return jax.lax.scan(advance, state, jnp.arange(config.steps))[0]

    params, _ = all_steps(state)
    test = digits().test
    logits = MODELS["mlp"](10).apply({"params": params}, test.images, train=False)
    return float(np.mean(np.argmax(np.asarray(logits), axis=1) == test.labels))


def errors(workers: int, seed: int, noise: float) -> dict[str, float]:
    """The shares of entries with a wrong sign: of the vote, and of the mean."""
    draw = np.random.default_rng(seed)
    gradient = draw.choice([-1.0, 1.0], ENTRIES)
    seen = gradient + noise * draw.normal(size=(workers, ENTRIES))
    channel = gmc_jax.majority_vote()
    vote = jax.vmap(lambda own: channel.average(own, ())[0], axis_name="workers")
    won = np.asarray(jax.jit(vote)(jnp.asarray(seen, jnp.float32)))[0]
    return {
        "mean": float(np.mean(np.sign(seen.mean(axis=0)) != gradient)),
        "vote": float(np.mean(won != gradient)),
    }


def main(config: Votes) -> None:
    """Trains with faulty workers, counts errors; records, prints and draws both."""
    record.prepare(config.results / "votes")
    seeds = range(config.seeds)
    settings = asdict(config) | {"batch_size": BATCH, "louder": SHOUT}
    with record.create(config.results / "votes", "run", settings) as log:
        for liars in track(range(config.liars + 1), "faulty", transient=True):
            for method in METHODS:
                log.append(
                    kind="training",
                    method=method,
                    liars=liars,
                    accuracies=[train(method, liars, seed, config) for seed in seeds],
                )
        for workers in COUNTS:
            each = [errors(workers, seed, config.noise) for seed in seeds]
            log.append(kind="errors", workers=workers, of_each_seed=each)
    STUDY.show(log.path)


def _missed(rows: Sequence[Row]) -> dict[int, dict[str, float]]:
    """The shares of wrong signs, by number of workers and method."""
    return {
        row["workers"]: {
            method: float(np.mean([each[method] for each in row["of_each_seed"]]))
            for method in METHODS
        }
        for row in rows
        if row["kind"] == "errors"
    }


def _liars(rows: Sequence[Row]) -> Table:
    reached = {
        (row["method"], row["liars"]): f"{np.mean(row['accuracies']):.1%}"
        for row in rows
        if row["kind"] == "training"
    }
    shown = Table(
        box=SIMPLE_HEAD,
        title=f"Test accuracy, by faulty workers of {rows[0]['config']['workers']}",
        title_justify="left",
    )
    shown.add_column("faulty", justify="right")
    for label in METHODS.values():
        shown.add_column(label, justify="right")
    for liars in dict.fromkeys(liars for _, liars in reached):
        cells = (reached.get((method, liars), "") for method in METHODS)
        shown.add_row(str(liars), *cells)
    return shown


def _errors(rows: Sequence[Row]) -> Table:
    shown = Table(
        box=SIMPLE_HEAD,
        title="Share of entries with a wrong sign, by the number of workers",
        title_justify="left",
    )
    for column in ("workers", "sign of the mean", "vote"):
        shown.add_column(column, justify="right")
    for workers, shares in _missed(rows).items():
        shown.add_row(str(workers), *(f"{shares[method]:.2%}" for method in METHODS))
    return shown


def _draw(rows: Sequence[Row]) -> Figure:
    missed = _missed(rows)
    if not missed:
        raise ValueError(
            "there is nothing to draw yet: no votes were counted. Run the study again."
        )
    figure = Figure(figsize=(4.2, 3), dpi=200, layout="constrained")
    panel = figure.subplots()
    for (method, label), colour in zip(
        METHODS.items(), ("#000000", "#E69F00"), strict=True
    ):
        shares = [each[method] for each in missed.values()]
        panel.plot(list(missed), shares, marker="o", ms=3, color=colour, label=label)
    panel.set(xscale="log", xlabel="workers", ylabel="wrong signs")
    panel.set(yscale="log")
    tidy(panel)
    panel.legend(frameon=False)
    noise = rows[0]["config"]["noise"]
    entitle(figure, f"votes on {ENTRIES:,} entries, {noise:g} times as much noise")
    return figure


STUDY = Study(
    "training",
    "accuracies",
    lambda rows: [_liars(rows), _errors(rows)],
    lambda rows: {"figure": _draw(rows)},
)
