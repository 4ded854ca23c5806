"""Trains every method of the library on one problem, for one table."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
from rich.progress import track
from rich.table import Table

import gmc_jax
from experiments.studies.every_method.custom_loops import CUSTOM_LOOPS
from experiments.studies.every_method.state_sizes import own_and_shared
from experiments.training import comparison, record, table, tasks
from experiments.training.config import Config
from experiments.training.local_methods import SLOW_MOMENTA
from experiments.training.methods import DETACHMENTS, METHODS
from experiments.training.study import Study
from experiments.training.tasks import Task
from experiments.training.trainer import worker_step
from experiments.utils.tables import narrow

VARIANTS = tuple(f"_{value}" for value in (*DETACHMENTS, *SLOW_MOMENTA))
EVERY_METHOD = tuple(name for name in METHODS if not name.endswith(VARIANTS))

_SIGNS, _ADAPTIVE = 0.001, 0.003
LEARNING_RATES = (
    ("ef_sgd", 0.5),
    ("quantised_sgd", 0.5),
    ("ternary_sgd", 0.5),
    ("ef_sign_sgd", 0.5),
    ("demo", _SIGNS),
    ("sign_sgd", _SIGNS),
    ("signum", _SIGNS),
    ("distributed_lion", _SIGNS),
    ("one_bit_adam", _ADAPTIVE),
    ("adam", _ADAPTIVE),
    ("detached_optimizer", 2 * _ADAPTIVE),
    ("local_adam", _ADAPTIVE),
    ("diloco", _ADAPTIVE),
    ("muloco", 0.05),  # Of steps that are orthogonal matrices.
    ("streaming_diloco", _ADAPTIVE),
    ("sparse_loco", _ADAPTIVE),
)
"""Learning rates of methods to which that of momentum SGD does not apply."""


@dataclasses.dataclass(frozen=True)
class EveryMethod:
    """Train every method of the library on one problem, for one table."""

    epochs: int = 20
    """Passes over the digits."""
    seeds: int = 1
    """The number of seeds to train every method with."""
    results: Path = Path("results")
    """The directory of results; this run's is `methods-001` or a later one."""

    @property
    def config(self) -> Config:
        """The comparison on digits, with a learning rate for each kind of method."""
        return Config(
            methods=EVERY_METHOD,
            epochs=self.epochs,
            evaluations=3,
            seeds=self.seeds,
            learning_rates=LEARNING_RATES,
        )


def main(options: EveryMethod) -> None:
    """Trains all methods; records and prints their accuracy, bytes and state."""
    config = options.config
    path = comparison.main("methods", config, options.results)
    if jax.process_index():
        return
    task = tasks.build(config, config.seed)
    with record.Record(path) as log:
        for method in config.methods:
            seeds = [
                row
                for row in log.rows
                if row["kind"] == "summary" and row["method"] == method
            ]
            own, shared = state_of(method, config, task)
            log.append(
                kind="line",
                label=METHODS[method].label,
                accuracies=[row["accuracy"] for row in seeds],
                bytes_per_step=seeds[0]["bytes_per_step"],
                own=own,
                shared=shared,
                gradient_at=METHODS[method].gradient_at,
            )
        loops = track(CUSTOM_LOOPS.values(), "custom loops", transient=True)
        for label, train in loops:
            lines = [
                train(tasks.build(config, config.seed + seed), config)
                for seed in range(options.seeds)
            ]
            log.append(
                kind="line",
                label=label,
                accuracies=[line.accuracy for line in lines],
                bytes_per_step=lines[0].bytes_per_step,
                own=lines[0].own,
                shared=lines[0].shared,
                gradient_at=lines[0].gradient_at,
            )
    STUDY.show(path)


def everything(rows: Sequence[record.Row]) -> Table:
    """A table with a line for each finished method."""
    shown = narrow(
        "method",
        title=(
            f"Every method, {rows[0]['steps']:,} steps on {rows[0]['config']['data']}"
        ),
        caption=(
            "State, with the parameters, in vectors of their size. own: differs "
            "between workers, for one worker. shared: the same on all workers. "
            "gradient at: the point where gradients are computed; w are shared "
            "parameters, x a worker's own, and e is its residual."
        ),
    )
    for column in ("test\naccuracy", "bytes\na step", "own\nstate", "shared"):
        shown.add_column(column, justify="right")
    shown.add_column("gradient at", no_wrap=True)
    for row in rows:
        if row["kind"] == "line":
            shown.add_row(
                row["label"],
                table.percent(row["accuracies"]),
                f"{row['bytes_per_step']:,.0f}",
                f"{row['own']:.0f}",
                f"{row['shared']:.0f}",
                row["gradient_at"],
            )
    return shown


def state_of(method: str, config: Config, task: Task) -> tuple[float, float]:
    """The sizes of a worker's own state and of the shared state; see `state_sizes`."""
    tx = config.optimizer(method, task.steps, task.steps_per_epoch)
    state = task.params, tx.init(task.params), task.stats
    batch = task.share, jax.tree.map(lambda leaf: leaf[0], task.draws(0, 1))
    layout = gmc_jax.layout(worker_step(task, tx), state, batch, config.workers)
    return own_and_shared(state, layout, task.params)


STUDY = Study("line", "own", lambda rows: [everything(rows)], comparison.STUDY.figures)
