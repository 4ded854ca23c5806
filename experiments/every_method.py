"""The command `methods`: every method of the library on one problem, in one table."""

import dataclasses
from pathlib import Path

import jax
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

import gmc_jax
from experiments import record, run, table, tasks
from experiments.config import Config
from experiments.local_methods import SLOW_MOMENTA
from experiments.methods import DETACHMENTS, METHODS
from experiments.own_loops import OWN_LOOPS, Line
from experiments.programs import worker_step
from experiments.state_sizes import own_and_shared
from experiments.tasks import Task

VARIANTS = tuple(f"_{value}" for value in (*DETACHMENTS, *SLOW_MOMENTA))
EVERY_METHOD = tuple(name for name in METHODS if not name.endswith(VARIANTS))


@dataclasses.dataclass(frozen=True)
class EveryMethod:
    """Every method of the library on one problem, in one table."""

    epochs: int = 20
    """Passes over the digits."""
    seeds: int = 1
    """How many seeds every method is trained with."""
    results: Path = Path("results")
    """Where a new directory, `methods-001` or a later number, is made."""

    @property
    def config(self) -> Config:
        """Digits, and a rate for each kind of method."""
        signs, adaptive = 0.001, 0.003
        return Config(
            methods=EVERY_METHOD,
            epochs=self.epochs,
            evaluations=3,
            seeds=self.seeds,
            learning_rates=(
                ("ef_sgd", 0.5),
                ("ef_sign_sgd", 0.5),
                ("sign_sgd", signs),
                ("signum", signs),
                ("adam", adaptive),
                ("local_adam", adaptive),
                ("diloco", adaptive),
            ),
        )


def main(options: EveryMethod) -> None:
    """Trains all methods, and prints what each reaches, sends and keeps."""
    rows = record.read(run.main("methods", options.config, options.results))
    task = tasks.build(options.config, options.config.seed)
    lines = {
        label: [
            train(tasks.build(options.config, options.config.seed + i), options.config)
            for i in range(options.seeds)
        ]
        for label, train in track(OWN_LOOPS.values(), "own loops", transient=True)
    }
    Console().print(everything(rows, options.config, task, lines))


def everything(
    rows: list[record.Row], config: Config, task: Task, lines: dict[str, list[Line]]
) -> Table:
    """One line a method that has finished."""
    shown = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=f"Every method, {rows[0]['steps']:,} steps on {config.data}",
        caption=(
            "State in vectors of the size of the parameters, these included: what each "
            "worker has of its own, and what all have alike. Of the points where "
            "gradients are taken, w are parameters that all have alike, x a worker's "
            "own, and e its residual."
        ),
        title_justify="left",
        caption_justify="left",
    )
    shown.add_column("method", no_wrap=True)
    for column in ("test\naccuracy", "bytes\na step", "own\nstate", "shared"):
        shown.add_column(column, justify="right")
    shown.add_column("gradient at", no_wrap=True)
    for method in config.methods:
        seeds = [
            row for row in rows if row["kind"] == "summary" and row["method"] == method
        ]
        if seeds:
            own, shared = state_of(method, config, task)
            shown.add_row(
                METHODS[method].label,
                table.percent([row["accuracy"] for row in seeds]),
                f"{seeds[0]['bytes_per_step']:,.0f}",
                f"{own:.0f}",
                f"{shared:.0f}",
                METHODS[method].gradient_at,
            )
    for label, seeds in lines.items():
        first = seeds[0]
        shown.add_row(
            label,
            table.percent([line.accuracy for line in seeds]),
            f"{first.bytes_per_step:,.0f}",
            f"{first.own:.0f}",
            f"{first.shared:.0f}",
            first.gradient_at,
        )
    return shown


def state_of(method: str, config: Config, task: Task) -> tuple[float, float]:
    """A worker's own state and what all have alike, in units of the parameters."""
    tx = config.optimizer(method, task.steps, task.steps_per_epoch)
    state = task.params, tx.init(task.params), task.stats
    batch = task.share, jax.tree.map(lambda leaf: leaf[0], task.draws(0, 1))
    plan = gmc_jax.layout(worker_step(task, tx), state, batch, config.workers)
    return own_and_shared(state, plan, task.params)
