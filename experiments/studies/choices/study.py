"""Trains what the planner chooses, from the Python that it prints, on a small text.

Each method has the best rate of a grid. Losses stand beside the planner's verdicts.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import optax
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

import gmc_jax
from experiments.studies.equal_bytes import problems
from experiments.studies.equal_bytes.any_rate import AnyRate
from experiments.studies.equal_bytes.rate_search import best_rates
from experiments.studies.equal_bytes.table import finite
from experiments.studies.plan.study import Plan
from experiments.training import record, tasks
from experiments.training.config import Config
from experiments.training.record import Record, Row
from experiments.training.study import Study
from experiments.utils.units import seconds
from gmc_jax.costs.expressions import Optimizer
from gmc_jax.costs.planning import DENSE, Prediction
from gmc_jax.costs.worth import ORDER
from gmc_jax.utils import checks
from gmc_jax.utils.trees import entries_in

NEVER = "never meeting"
CENTRES = {"sgd": 0.15, "adam": 0.003}
"""The middle of the grid of rates."""


@dataclass(frozen=True)
class Choices:
    """Train what the planner chooses: do its safe methods reach dense's loss?"""

    text_file: Path
    """A text in UTF-8, such as the plays of Shakespeare of Karpathy's char-rnn."""
    optimizer: Optimizer = "adam"
    """The optimizer that methods are written over: sgd, with momentum, or adam."""
    steps: int = 300
    """Steps of each training."""
    workers: int = 4
    """The number of workers."""
    batch_size: int = 4
    """Windows of 64 characters in the batch of one worker."""
    each: int = 8
    """How many methods of each verdict are trained, besides the baselines."""
    ratios: tuple[float, ...] = (0.1, 0.01)
    """The shares of the entries that messages hold."""
    periods: tuple[int, ...] = (12, 30)
    """Steps from one synchronisation of local methods to the next."""
    bandwidth: str = "100mbit"
    """The bandwidth of each worker's link in each direction."""
    latency: str = "20ms"
    """The latency of a message."""
    step_time: str = "200ms"
    """The time of a step's computation."""
    results: Path = Path("results")
    """The directory of results. An interrupted run of the same options in it goes on;
    otherwise this run's is `choices-001` or a later one."""

    def __post_init__(self):
        """Refuses numbers out of range."""
        checks.positive_int(
            steps=self.steps,
            workers=self.workers,
            batch_size=self.batch_size,
            each=self.each,
        )

    @property
    def problem(self) -> Config:
        """The training."""
        return problems.under_adam(
            self.text_file, self.workers, self.batch_size, self.steps
        )

    def plan(self, parameters: int) -> list[Prediction]:
        """What the planner says, in its order."""
        link = Plan(bandwidth=self.bandwidth, latency=self.latency).link
        return gmc_jax.plan(
            parameters,
            self.workers,
            link,
            seconds(self.step_time),
            ratios=self.ratios,
            periods=self.periods,
            steps=self.steps,
            optimizer=self.optimizer,
        )

    def chosen(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """The baselines, and the first methods of each verdict."""
        names = (DENSE.name, NEVER)
        baselines = [row for row in predictions if row.name in names]
        first = [
            [
                row
                for row in predictions
                if row.name not in names and row.worth and row.worth.verdict == verdict
            ][: self.each]
            for verdict in ORDER
        ]
        return [*baselines, *(row for rows in first for row in rows)]


def main(options: Choices) -> None:
    """Plans, searches rates and trains; records and prints the losses."""
    record.prepare(options.results)
    task = tasks.build(options.problem, 0)
    chosen = options.chosen(options.plan(entries_in(task.params)))
    settings = {
        **asdict(options),
        "text_file": options.text_file.name,
        "results": None,
        "methods": [_named(row) for row in chosen],
        "seed": 0,
        "seeds": 1,
    }
    with record.begin(options.results, "choices", settings) as log:
        for row in track(chosen, "choices", transient=True):
            if (_named(row), 0) not in log.trained:
                _train(row, options, task, log)
                log.append(kind="summary", method=_named(row), seed=0)
    STUDY.show(log.path)


def _named(row: Prediction) -> str:
    return f"{row.name} at {row.ratio}" if row.ratio else row.name


def _train(row: Prediction, options: Choices, task: tasks.Task, log: Record) -> None:
    """Searches the rate of one method, and records the loss at each."""
    worth = row.worth._asdict() if row.worth else {}
    which = {"kind": "choice", "method": row.name, "ratio": row.ratio}
    programs: list[AnyRate] = []

    def loss(rate: float) -> float:
        for done in log.rows:
            if done.items() >= (which | {"rate": rate}).items():
                return finite(done["loss"])
        if not programs:

            def optimizer(
                rate: jax.Array | float,
            ) -> optax.GradientTransformationExtraArgs:
                falling = optax.cosine_decay_schedule(rate, task.steps)
                return evaluated(row.expression, falling)

            programs.append(AnyRate(optimizer, task, options.problem))
        (reached,) = programs[0].train(task, rate, [task.steps])
        log.append(**which, rate=rate, loss=reached.loss, seconds=row.total, **worth)
        return reached.loss

    rate, *_ = best_rates(loss, CENTRES[options.optimizer])
    shown = f"{_named(row)}: {loss(rate):.4f} at {rate:g}"
    Console().print(shown, highlight=False)


def evaluated(
    expression: str, rate: optax.ScalarOrSchedule
) -> optax.GradientTransformationExtraArgs:
    """Makes the method that the planner has printed."""
    return eval(expression, {"gmc_jax": gmc_jax, "optax": optax, "rate": rate})


def best(rows: Sequence[Row]) -> list[Row]:
    """The row of each method at its best rate, in the planner's order."""
    trained = [row for row in rows if row["kind"] == "choice"]
    found: dict[tuple[str, float | None], Row] = {}
    for row in trained:
        key = row["method"], row["ratio"]
        if key not in found or finite(row["loss"]) < finite(found[key]["loss"]):
            found[key] = row
    return sorted(
        found.values(), key=lambda row: (ORDER.index(row["verdict"]), row["seconds"])
    )


def tables(rows: Sequence[Row]) -> list[Table | str]:
    """A table of losses beside verdicts, and what they say of the planner."""
    config, reached = rows[0]["config"], best(rows)
    losses = {row["method"]: finite(row["loss"]) for row in reached}
    if DENSE.name not in losses:
        raise ValueError("the dense method is not trained yet. Start the study again.")
    dense = losses[DENSE.name]
    shown = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=f"{config['steps']} steps of {config['optimizer']}, {config['workers']} "
        f"workers, {config['bandwidth']} with {config['latency']}",
        caption="seconds: of the training, as planned. lag: the share of the training. "
        "loss: on 1,000 windows, at the best rate; and above that of the dense method.",
        title_justify="left",
        caption_justify="left",
    )
    shown.add_column("method")
    for column in ("ratio", "lag", "seconds", "loss", "above"):
        shown.add_column(column, justify="right", no_wrap=True)
    verdict = ""
    for row in reached:
        if row["verdict"] != verdict:
            verdict = row["verdict"]
            shown.add_row(f"{verdict}:", style="bold")
        loss = finite(row["loss"])
        shown.add_row(
            row["method"],
            f"{row['ratio']:.3g}" if row["ratio"] else "",
            f"{row['lag'] / row['steps']:.1%}",
            f"{row['seconds']:.1f}",
            f"{loss:.3f}",
            f"{loss - dense:+.3f}",
        )
    safe = [finite(row["loss"]) - dense for row in reached if row["verdict"] == "safe"]
    words = [f"Of what is safe, the worst ends {max(safe):.3f} above dense."]
    if NEVER in losses:
        first = reached[0]
        words.append(
            f"The first choice, {first['method']}, ends {finite(first['loss']):.3f}; "
            f"never meeting {losses[NEVER]:.3f}, dense {dense:.3f}."
        )
    return [shown, *words]


STUDY = Study("choice", "verdict", tables)
