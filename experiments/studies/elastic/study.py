"""Trains with 8 workers, then resumes with other numbers from the checkpoint."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import optax
from matplotlib.figure import Figure
from rich.progress import track
from rich.table import Table

import gmc_jax
from experiments.training import record, tasks
from experiments.training.config import Config
from experiments.training.methods import label
from experiments.training.plot import legend, tidy
from experiments.training.record import Row
from experiments.training.study import Study
from experiments.training.trainer import Trainer
from experiments.utils import failures, signals
from experiments.utils.tables import narrow
from gmc_jax.core import Tree
from gmc_jax.utils import checks

LOOKS = (("#000000", "-"), ("#0072B2", "--"), ("#D55E00", "-."), ("#009E73", ":"))


@dataclasses.dataclass(frozen=True)
class Elastic:
    """Train with one number of workers, then resume with others from the checkpoint."""

    methods: tuple[str, ...] = ("gmc", "dgc", "cser", "slowmo")
    """The methods to train."""
    workers: int = 8
    """The number of workers up to the checkpoint."""
    then: tuple[int, ...] = (8, 4, 2, 6)
    """The numbers of workers that resume from the same checkpoint."""
    steps: int = 200
    """Steps up to the checkpoint, and as many after it."""
    every: int = 10
    """Steps from one evaluation to the next."""
    batch_size: int = 96
    """Samples in a step, of all workers together."""
    ratio: float = 0.01
    """The share of the entries that a message holds."""
    results: Path = Path("results")
    """The directory of results; this run's is `elastic/run-001` or a later one."""

    def __post_init__(self):
        """Refuses numbers out of range."""
        checks.positive_int(batch_size=self.batch_size)
        for workers in (self.workers, *self.then):
            checks.positive_int(workers=workers)
            if self.batch_size % workers:
                raise ValueError(
                    "`batch_size` must be a multiple of all numbers of workers, such "
                    f"as {workers}, got {self.batch_size}."
                )
        if not self.methods or not self.then:
            raise ValueError("`methods` and `then` must each name at least one.")
        for method in self.methods:
            self.config(method, self.workers)  # It refuses values out of range.
        checks.positive_int(steps=self.steps, every=self.every)
        if self.steps % self.every:
            raise ValueError(
                f"`steps` must be a multiple of `every`, got {self.steps} and "
                f"{self.every}."
            )

    def config(self, method: str, workers: int) -> Config:
        """The configuration of the training of one method by `workers` workers."""
        return Config(
            methods=(method,),
            workers=workers,
            batch_size=self.batch_size // workers,
            ratio=self.ratio,
            steps=2 * self.steps,
        )


def follow(method: str, config: Elastic) -> list[Row]:
    """Trains one method up to the checkpoint, and from there with each number.

    Returns:
      A row for each number of workers: losses on all training samples, and the change
      of the mean residual at the checkpoint, relative to its norm (None without a
      residual).
    """
    with signals.temporary_directory() as directory:
        before = config.config(method, config.workers)
        task = tasks.build(before, before.seed)
        trainer = Trainer(method, [task], before)
        with gmc_jax.Checkpoints(directory, trainer.layout) as checkpoints:
            losses_before = _losses(trainer, task, 0, config.steps, config.every)
            checkpoints.save(config.steps, trainer.state)
        old = mean_residual(trainer.state)
        rows = []
        for workers in config.then:
            after = config.config(method, workers)
            task = tasks.build(after, after.seed)
            trainer = Trainer(method, [task], after)
            with gmc_jax.Checkpoints(directory, trainer.layout) as checkpoints:
                _, trainer.state, _ = checkpoints.restore(trainer.state, resize=True)
            new = mean_residual(trainer.state)
            losses_after = _losses(
                trainer, task, config.steps, 2 * config.steps, config.every
            )
            rows.append(
                {
                    "method": method,
                    "workers": workers,
                    "before": losses_before,
                    "after": losses_after,
                    "residual": _relative_change(old, new),
                }
            )
    return rows


def mean_residual(state: Tree) -> np.ndarray | None:
    """The mean residual of all workers, a float64 vector; None without a residual."""
    residual = optax.tree.get(state, "residual")
    if residual is None:
        return None
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(residual)]
    return np.concatenate([leaf.mean(axis=0).ravel() for leaf in leaves])


def main(config: Elastic) -> None:
    """Trains all methods; records, prints and draws the losses."""
    record.prepare(config.results / "elastic")
    failures.hush_threads()
    with record.create(
        config.results / "elastic", "run", dataclasses.asdict(config)
    ) as log:
        for method in track(config.methods, transient=True):
            for row in follow(method, config):
                log.append(kind="continuation", **row)
    STUDY.show(log.path)


def table(rows: Sequence[Row]) -> Table:
    """A table of the losses around the checkpoint, and of the residual's change."""
    shown = narrow("method", _title(rows[0]["config"]))
    columns = ("workers", "loss\nbefore", "after", "next", "last", "residual\nchange")
    for column in columns:
        shown.add_column(column, justify="right", no_wrap=True)
    for row in _continuations(rows):
        residual = row["residual"]
        shown.add_row(
            label(row["method"]),
            str(row["workers"]),
            f"{np.asarray(row['before'], float)[-1]:.4f}",
            *(f"{loss:.4f}" for loss in np.asarray(row["after"], float)[[0, 1, -1]]),
            "" if residual is None else f"{residual:.0e}",
        )
    return shown


def draw(rows: Sequence[Row]) -> Figure:
    """Draws a panel for each method, with a line for each number of workers."""
    config = rows[0]["config"]
    methods, last, every = config["methods"], config["steps"], config["every"]
    figure = Figure(figsize=(2.4 * len(methods), 2.8), dpi=200, layout="constrained")
    panels = figure.subplots(1, len(methods), squeeze=False)[0]
    steps = np.arange(0, last + 1, every)
    for panel, method in zip(panels, methods, strict=True):
        those = (row for row in _continuations(rows) if row["method"] == method)
        for index, row in enumerate(those):
            colour, dashes = LOOKS[index % len(LOOKS)]
            if not index:
                panel.plot(steps, np.asarray(row["before"], float), color=colour)
            panel.plot(
                last + steps,
                np.asarray(row["after"], float),
                color=colour,
                linestyle=dashes,
                label=f"{row['workers']} workers",
            )
        panel.axvline(last, color="0.7", linewidth=0.8)
        panel.set(yscale="log", xlabel="step")
        panel.set_title(label(method), fontsize="small")
        tidy(panel)
    panels[0].set(ylabel="training loss")
    legend(figure, panels[0], _title(config), columns=4)
    return figure


def _continuations(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["kind"] == "continuation"]


def _title(config: Row) -> str:
    return (
        f"mlp on digits, {config['workers']} workers up to step {config['steps']}, "
        "then other numbers of them"
    )


def _losses(
    trainer: Trainer, task: tasks.Task, first: int, last: int, every: int
) -> list[float]:
    """Losses on all training samples, at the start and after every few steps."""
    losses = []
    for stop in range(first, last + 1, every):
        if stop > first:
            trainer.run(stop - every, stop)
        (model,) = trainer.models()
        losses.append(float(f"{task.evaluate(*model)['loss']:.5g}"))
    return losses


def _relative_change(old: np.ndarray | None, new: np.ndarray | None) -> float | None:
    if old is None or new is None:
        return None
    return float(np.linalg.norm(new - old) / np.linalg.norm(old))


STUDY = Study(
    "continuation",
    "residual",
    lambda rows: [table(rows)],
    lambda rows: {"figure": draw(rows)},
)
