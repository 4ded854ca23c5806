"""Trains every method that sends less than dense, each at its own learning rate."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from experiments.studies.equal_bytes import figure, problems, table
from experiments.studies.equal_bytes.any_rate import AnyRate
from experiments.studies.equal_bytes.rate_search import APART, best_rates
from experiments.training import record, tasks
from experiments.training.config import Config
from experiments.training.methods import METHODS, label
from experiments.training.record import Record, Row
from experiments.training.study import Study
from experiments.training.tasks import Task
from gmc_jax.utils import checks


@dataclass(frozen=True)
class EqualBytes:
    """Compare all methods that send less than dense, at equal steps and equal bytes."""

    text_file: Path | None = None
    """A text in UTF-8 for the transformer; without one, only the digits are trained."""
    methods: tuple[str, ...] = ()
    """The methods to compare; by default all that send less than dense."""
    steps: int = 204
    """Steps of each training on digits; 17 periods of methods with local steps."""
    text_steps: int = 180
    """Steps of each training on text; 15 of these periods."""
    seeds: int = 3
    """The number of seeds. A rate is chosen by the first of them."""
    results: Path = Path("results")
    """The directory of results. An interrupted run of the same options in it goes on;
    otherwise this run's is `equal_bytes-001` or a later one."""

    def __post_init__(self):
        """Refuses numbers out of range."""
        checks.positive_int(
            steps=self.steps, text_steps=self.text_steps, seeds=self.seeds
        )
        for method in self.methods:
            if method not in METHODS:
                raise ValueError(
                    f"`methods` must be among {', '.join(METHODS)}, got {method!r}."
                )

    @property
    def configs(self) -> dict[str, Config]:
        """The problems by name."""
        found = {"digits": problems.digits(self.steps)}
        if self.text_file is not None:
            found["text"] = problems.text(self.text_file, self.text_steps)
        return found


def main(options: EqualBytes) -> None:
    """Searches rates and trains; records, prints and draws the losses."""
    record.prepare(options.results)
    configs = options.configs
    seeds = {  # All of them first: a text that cannot be read is an error at once.
        name: [tasks.build(config, seed) for seed in range(options.seeds)]
        for name, config in configs.items()
    }
    settings = {
        "problems": {name: asdict(config) for name, config in configs.items()},
        "methods": options.methods or problems.sending_less(configs["digits"]),
        "seed": 0,
        "seeds": options.seeds,
        "rates_apart": APART,
        "budgets": problems.BUDGETS,
    }
    with record.begin(options.results, "equal_bytes", settings) as log:
        methods = log.rows[0]["config"]["methods"]
        for name, config in configs.items():
            for method in track(methods, name, transient=True):
                trained = _train(method, name, config, seeds[name], log)
                if name == list(configs)[-1]:
                    for row in trained:
                        _summarise(row, log)
    STUDY.show(log.path)


def _train(
    method: str, problem: str, config: Config, seeds: Sequence[Task], log: Record
) -> list[Row]:
    """Searches the rate with the first seed, trains the others, returns their rows.

    If another seed diverges at the best rate, the next best one takes its place.
    """
    task = seeds[0]
    dense = problems.bytes_sent(problems.REFERENCES[0], task, config)[-1]
    sent = problems.bytes_sent(method, task, config)
    stops = problems.stops(sent, dense)
    programs: list[AnyRate] = []

    def trained(rate: float, seed: int) -> Row:
        which = {"problem": problem, "method": method, "rate": rate, "seed": seed}
        for row in log.rows:
            if row["kind"] == "training" and row.items() >= which.items():
                return row
        if not programs:  # A run that goes on has most of its rows already.
            programs.append(
                AnyRate(problems.optimizer(method, task, config), task, config)
            )
        places = sorted(set(stops))
        reached = programs[0].train(seeds[seed], rate, places)
        found = [reached[places.index(stop)] for stop in stops]
        log.append(
            kind="training",
            **which,
            stops=stops,
            losses=[each.loss for each in found],
            accuracy=found[0].accuracy,
            bytes=sent[-1],
            dense_bytes=dense,
        )
        return log.rows[-1]

    def loss(rate: float) -> float:
        return table.finite(trained(rate, 0)["losses"][0])

    centre = problems.CENTRES.get(method, config.learning_rate)
    rows, last = list[Row](), np.inf
    for rate in best_rates(loss, centre):
        rows = [trained(rate, seed) for seed in range(len(seeds))]
        last = float(np.mean([table.finite(row["losses"][0]) for row in rows]))
        if np.isfinite(last):  # Else another seed diverges at this rate.
            break
    Console().print(f"{problem}, {label(method)}: {last:.4f} at {rows[0]['rate']:g}")
    return rows


def _summarise(row: Row, log: Record) -> None:
    """Marks that all problems are trained with a method and a seed."""
    if (row["method"], row["seed"]) not in log.trained:
        log.append(kind="summary", method=row["method"], seed=row["seed"])


STUDY = Study("training", "dense_bytes", table.tables, figure.figures)
