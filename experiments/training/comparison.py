"""Compares methods on one task: trains each, then prints a table and draws figures."""

import dataclasses
import itertools
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import jax
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from experiments.training import (
    backends,
    language,
    plot,
    record,
    shared_record,
    table,
    tasks,
)
from experiments.training.config import Config
from experiments.training.methods import label as label_of
from experiments.training.study import Study, save, say
from experiments.training.train import train
from experiments.utils import failures
from gmc_jax.checkpoints import _directories


def main(name: str, config: Config, results: Path = Path("results")) -> Path:
    """Trains every method of `config`, and draws and prints the comparison.

    Args:
      name: of the run; its directory is `name-001` or a later number.
      config: what to compare.
      results: the directory of all results. An interrupted run of the same
        configuration in it continues; otherwise a new directory is made.

    Returns:
      The directory of the run.
    """
    results = Path(os.path.expanduser(results))  # Checkpoints expand it too.
    record.prepare(results)
    _directories.usable_path(str(results))
    failures.hush_threads()
    if config.backend != "simulate":
        backends.mesh(config.most_workers, config.devices_each)
    console = Console()
    seeds = range(config.seed, config.seed + config.seeds)
    at_once = _at_once(config)
    config = dataclasses.replace(config, seeds_at_once=at_once)
    task = tasks.build(config, config.seed)
    counts = task.class_counts.tolist()
    console.print(table.class_counts(counts))
    facts = {
        "steps": task.steps,
        "steps_per_epoch": task.steps_per_epoch,
        "class_counts": counts,
    }
    columns = (
        TextColumn("{task.description:20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with (
        shared_record.begin(results, name, dataclasses.asdict(config), **facts) as log,
        Progress(*columns, console=console) as progress,
    ):
        for group in (seeds[i : i + at_once] for i in range(0, len(seeds), at_once)):
            trained = [tasks.build(config, seed) for seed in group]
            for method in config.methods:
                label = label_of(method)
                if config.seeds > 1:
                    label += f", seed {', '.join(map(str, group))}"
                bar = progress.add_task(label, total=task.steps)

                def advance(done: int, bar: TaskID = bar) -> None:
                    progress.update(bar, completed=done)

                if log.trained.issuperset(itertools.product([method], group)):
                    advance(task.steps)
                else:
                    train(method, trained, group, config, log, advance)
    if jax.process_index():
        return log.path
    save(_figure(log.rows), log.path / "figure.png")
    for shown in _results(log.rows):
        console.print(shown, markup=False, highlight=False)
    say(f"Log, figure and models: {log.path}")
    shutil.rmtree(log.path / record.CHECKPOINTS, ignore_errors=True)
    return log.path


def _at_once(config: Config) -> int:
    on_cpu = jax.default_backend() == "cpu" or config.backend != "simulate"
    return config.seeds_at_once or (1 if on_cpu else config.seeds)


def _tables(rows: Sequence[record.Row]) -> list[Table | str]:
    return [table.class_counts(rows[0]["class_counts"]), *_results(rows)]


def _results(rows: Sequence[record.Row]) -> list[Table | str]:
    if language.has_test_losses(rows):
        return language.comparison(rows)
    return [table.comparison(rows)]


def _figure(rows: Sequence[record.Row]) -> Figure:
    return language.draw(rows) if language.has_test_losses(rows) else plot.draw(rows)


STUDY = Study("header", "class_counts", _tables, lambda rows: {"figure": _figure(rows)})
