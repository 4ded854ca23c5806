"""Tables of the GMC paper beside the results of our runs."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from experiments.paper.published import TABLES, Figures
from experiments.training import named_runs, record
from experiments.training.config import Config

KEPT = Path(__file__).parents[1] / "results"
"""The results that are kept with the project."""

# Options that may differ between two runs of the same experiment.
_INCIDENTAL = {
    "methods",
    "data_file",
    "evaluations",
    "judge_on",
    "backend",
    "seed",
    "seeds",
    "seeds_at_once",
}


def beside_ours(number: str, results: Path) -> Table:
    """A table of the paper with our results below each line.

    Ours are means over the seeds of all runs with the configuration of the named run,
    in `results` and among the results that are kept with the project. A run with
    another number of epochs, or on a part of the data, is another experiment and does
    not count.

    Args:
      number: of the table, 1 to 4.
      results: the directory of all results.
    """
    printed = TABLES[number]
    shown = Table(
        "",
        "",
        *printed.columns,
        box=SIMPLE_HEAD,
        title=printed.title,
        title_justify="left",
        caption=(
            "Ours: mean and standard deviation over seeds, with the number of seeds in "
            "brackets. experiments/paper/settings.py lists the settings that are "
            "reconstructed."
        ),
        caption_justify="left",
    )
    for line in printed.lines:
        shown.add_row(line.label, "paper", *map(str, line.published.values()))
        summaries = list(_summaries(line.run, results))
        cells = []
        for method, published in line.published.items():
            seeds = {row["seed"]: row for row in summaries if row["method"] == method}
            cells.append(_cell(list(seeds.values()), published))
        shown.add_row("", "ours", *cells, end_section=True)
    return shown


def _cell(rows: Sequence[record.Row], published: Figures) -> str:
    if not rows:
        return "not run"

    def of(quantity: str) -> list[float]:
        return [row[quantity] for row in rows]

    ours = Figures(
        100 * float(np.mean(of("accuracy"))),
        None if published.cost is None else 100 * float(np.mean(of("relative_cost"))),
        None if published.loss is None else float(np.mean(of("loss"))),
    )
    spread = "" if len(rows) == 1 else f" ±{100 * np.std(of('accuracy'), ddof=1):.2f}"
    return f"{ours}{spread} [{len(rows)}]"


def _summaries(run: str, results: Path) -> Iterator[record.Row]:
    """The summaries in all records with the configuration of a named run."""
    wanted = _essential(dataclasses.asdict(named_runs.find(run).config))
    for log in sorted(
        (*results.glob(f"*/{record.LOG}"), *KEPT.glob(f"*/{record.LOG}"))
    ):
        header = record.header(log.parent)
        if header.get("name") == run and _essential(header["config"]) == wanted:
            rows = record.read(log.parent)
            yield from (row for row in rows if row["kind"] == "summary")


def _essential(config: record.Row) -> record.Row:
    fields = {field.name for field in dataclasses.fields(Config)}
    plain = record.plain(config)
    return {name: plain.get(name) for name in fields - _INCIDENTAL}
