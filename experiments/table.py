"""The command `table`: what a run came to, from its record."""

from collections.abc import Sequence
from pathlib import Path

import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from experiments import record
from experiments.methods import METHODS


def main(
    path: tyro.conf.Positional[Path | None] = None, results: Path = Path("results")
) -> None:
    """Prints what a run recorded.

    Args:
      path: the directory of the run; the latest in `results` by default.
      results: the directory of all results.
    """
    rows = record.read(path or record.latest(results))
    console = Console()
    console.print(class_counts(rows[0]["class_counts"]))
    console.print(comparison(rows))


def class_counts(counts: Sequence[Sequence[int]]) -> Table:
    """How many samples of each class (a column) each worker (a row) holds."""
    shown = Table(
        "worker", box=SIMPLE_HEAD, title="Samples of each class", title_justify="left"
    )
    for label in range(len(counts[0])):
        shown.add_column(str(label), justify="right")
    shown.add_column("all", justify="right")
    for worker, row in enumerate(counts):
        cells = [str(count) if count else "·" for count in row]
        shown.add_row(str(worker), *cells, str(sum(row)))
    return shown


def comparison(rows: Sequence[record.Row]) -> Table:
    """One line a method that has finished, in the order of the record."""
    header, summaries = rows[0], [row for row in rows if row["kind"] == "summary"]
    config = header["config"]
    shown = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=(
            f"{header['name']}: {config['model']} on {config['data']}, "
            f"{config['workers']} workers, {header['steps']:,} steps"
        ),
        caption=(
            "Judged at the last step. Bytes are what a worker sends in a step; RCC is "
            "what the paper's server receives and sends, against dense. Seconds are of "
            "training steps alone."
        ),
        title_justify="left",
        caption_justify="left",
    )
    shown.add_column("method", no_wrap=True)
    for column in (
        "rate",
        "test\naccuracy",
        "training\nloss",
        "bytes\na step",
        "times\nfewer",
        "RCC",
        "seconds",
    ):
        shown.add_column(column, justify="right")
    for row in summaries:
        shown.add_row(
            METHODS[row["method"]].label,
            f"{row['learning_rate']:g}",
            f"{row['accuracy']:.2%}",
            f"{row['loss']:.4f}",
            f"{row['bytes_per_step']:,.0f}",
            f"{row['dense_bytes_per_step'] / row['bytes_per_step']:.1f}",
            f"{row['relative_cost']:.2%}",
            f"{row['seconds']:.1f}",
        )
    return shown
