"""Trains a small transformer with Adam and what compresses it, each at its own rate."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import optax
from rich.console import Console
from rich.progress import track

from experiments.studies.adam import table
from experiments.studies.adam.candidates import CANDIDATES
from experiments.studies.equal_bytes import problems
from experiments.studies.equal_bytes.any_rate import AnyRate
from experiments.studies.equal_bytes.rate_search import best_rates
from experiments.studies.equal_bytes.table import finite
from experiments.training import record, tasks
from experiments.training.config import Config
from experiments.training.record import Record
from experiments.training.study import Study
from experiments.training.tasks import Task
from gmc_jax.costs.sent_per_step import bits_of_steps
from gmc_jax.utils import checks
from gmc_jax.utils.trees import entries_in

APART = 2.0
"""The ratio of neighbouring learning rates."""


@dataclass(frozen=True)
class Adam:
    """Compare what compresses Adam on a transformer, over ratios and workers."""

    text_file: Path
    """A text in UTF-8, such as the plays of Shakespeare of Karpathy's char-rnn."""
    methods: tuple[str, ...] = ()
    """The methods to compare; by default all of them."""
    workers: tuple[int, ...] = (4, 8)
    """The numbers of workers. Rates are sought with the first of them."""
    steps: int = 300
    """Steps of each training."""
    batch_size: int = 4
    """Windows of 64 characters in the batch of one worker."""
    seeds: int = 3
    """The number of seeds. A rate is chosen by the first of them."""
    results: Path = Path("results")
    """The directory of results. An interrupted run of the same options in it goes on;
    otherwise this run's is `adam-001` or a later one."""

    def __post_init__(self):
        """Refuses numbers out of range."""
        checks.positive_int(
            steps=self.steps, batch_size=self.batch_size, seeds=self.seeds
        )
        for workers in self.workers:
            checks.positive_int(workers=workers)
        if not self.workers:
            raise ValueError("`workers` must hold at least one number, got none.")
        for method in self.methods:
            if method not in CANDIDATES:
                raise ValueError(
                    f"`methods` must be among {', '.join(CANDIDATES)}, got {method!r}."
                )

    def config(self, workers: int) -> Config:
        """The training of one number of workers."""
        return problems.under_adam(self.text_file, workers, self.batch_size, self.steps)

    @property
    def lines(self) -> list["Line"]:
        """What is trained, in this order: first what every number of workers trains."""
        methods = self.methods or tuple(CANDIDATES)
        main = [name for name in methods if CANDIDATES[name].is_main]
        others = [name for name in methods if name not in main]
        trained = [(workers, main) for workers in self.workers]
        return [
            Line(name, ratio, period or self.steps, workers)
            for workers, names in [*trained, (self.workers[0], others)]
            for name in names
            for ratio in CANDIDATES[name].ratios
            for period in CANDIDATES[name].periods
        ]


class Line(NamedTuple):
    """A line of the comparison.

    Attributes:
      method: a name in `CANDIDATES`.
      ratio: the share of the entries that a message holds.
      period: the steps between two messages.
      workers: their number.
    """

    method: str
    ratio: float
    period: int
    workers: int

    @property
    def name(self) -> str:
        """The name in the log."""
        every = f"every {self.period}, " if self.period > 1 else ""
        return f"{self.method} {self.ratio:.2%}, {every}{self.workers} workers"

    def optimizer(
        self, rate: float | jax.Array, steps: int
    ) -> optax.GradientTransformationExtraArgs:
        """Makes the method; its rate falls as a cosine from `rate`, perhaps traced."""
        falling = optax.cosine_decay_schedule(rate, steps)
        build = CANDIDATES[self.method].build
        return optax.with_extra_args_support(
            build(falling, self.ratio, self.period, steps)
        )


def main(options: Adam) -> None:
    """Searches rates and trains; records and prints the losses."""
    record.prepare(options.results)
    lines = options.lines
    settings = {
        "problem": asdict(options.config(options.workers[0])),
        "workers": options.workers,
        "methods": [line.name for line in lines],
        "seed": 0,
        "seeds": options.seeds,
        "rates_apart": APART,
    }
    with record.begin(options.results, "adam", settings) as log:
        built: dict[tuple[int, int], Task] = {}
        for line in track(lines, "adam", transient=True):
            config = options.config(line.workers)
            for seed in range(options.seeds):
                if (line.workers, seed) not in built:
                    built[line.workers, seed] = tasks.build(config, seed)
            of_seed = [built[line.workers, seed] for seed in range(options.seeds)]
            _train(line, config, of_seed, log)
            for seed in range(options.seeds):
                if (line.name, seed) not in log.trained:
                    log.append(kind="summary", method=line.name, seed=seed)
    STUDY.show(log.path)


def _train(line: Line, config: Config, built: Sequence[Task], log: Record) -> None:
    """Searches the rate with the first seed, and trains the others at the best one."""
    task = built[0]
    programs: list[AnyRate] = []

    def loss(rate: float, seed: int = 0) -> float:
        which = {"kind": table.KIND, **line._asdict(), "seed": seed, "rate": rate}
        for row in log.rows:
            if row.items() >= which.items():
                return finite(row["loss"])
        if not programs:  # A run that goes on has most of its rows already.
            programs.append(
                AnyRate(lambda rate: line.optimizer(rate, task.steps), task, config)
            )
        (reached,) = programs[0].train(built[seed], rate, [task.steps])
        log.append(**which, loss=reached.loss, **_bytes(line, task))
        return reached.loss

    candidate = CANDIDATES[line.method]
    best = _best_of_first(line, log.rows)
    if best is None:
        best, *_ = best_rates(loss, candidate.centre, APART)
    seeds = range(len(built) if candidate.is_main else 1)
    mean = np.mean([loss(best, seed) for seed in seeds])
    Console().print(f"{line.name}: {mean:.4f} at {best:g}", highlight=False)


def _best_of_first(line: Line, rows: Sequence[record.Row]) -> float | None:
    """The best rate with the first number of workers; None if this line has it."""
    found = table.reached(rows)
    for key, best in found.items():
        if key[:3] == line[:3]:
            return best.rate if key[3] != line.workers else None
    return None


def _bytes(line: Line, task: Task) -> dict[str, float]:
    """The bytes of a worker in the training, and those that a dense one sends."""
    tx = line.optimizer(0.1, task.steps)
    sent = bits_of_steps(tx, task.params, task.steps, "workers", {})
    return {
        "bytes": float(sent.sum() / 8),
        "dense_bytes": 4.0 * entries_in(task.params) * task.steps,
    }


STUDY = Study(table.KIND, "ratio", table.tables)
"""The table of losses over ratios, periods and numbers of workers."""
