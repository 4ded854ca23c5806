"""Tables of a run."""

from collections.abc import Sequence

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from experiments.training import record
from experiments.training.methods import label


def class_counts(counts: Sequence[Sequence[int]]) -> Table:
    """How many samples of each class (a column) each worker (a row) holds.

    Of more than ten classes, how many a worker holds at all, and of which the most.
    """
    shown = Table(
        "worker",
        box=SIMPLE_HEAD,
        padding=0,
        title="Samples of each class",
        title_justify="left",
    )
    few = len(counts[0]) <= 10
    columns = (
        map(str, range(len(counts[0]))) if few else ("classes", "most", "of class")
    )
    for column in (*columns, "all"):
        shown.add_column(column, justify="right", no_wrap=True)
    for worker, row in enumerate(counts):
        if few:
            cells = [str(count) if count else "·" for count in row]
        else:
            held = sum(count > 0 for count in row)
            cells = [str(held), str(max(row)), str(np.argmax(row))]
        shown.add_row(str(worker), *cells, str(sum(row)))
    return shown


def comparison(rows: Sequence[record.Row]) -> Table:
    """One line a method that has finished, in the order of the record.

    Of several seeds it shows the mean, and of accuracies the standard deviation too.
    """
    header, config = rows[0], rows[0]["config"]
    summaries = [row for row in rows if row["kind"] == "summary"]
    shown = Table(
        box=SIMPLE_HEAD,
        padding=0,
        title=title(header),
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
    for method in config["methods"]:
        seeds = [row for row in summaries if row["method"] == method]
        if not seeds:
            continue
        (first, *_) = seeds

        def mean(quantity: str, seeds: Sequence[record.Row] = seeds) -> float:
            return float(np.mean([row[quantity] for row in seeds]))

        fewer = "none"  # A ring of one worker sends nothing.
        if first["bytes_per_step"]:
            fewer = f"{first['dense_bytes_per_step'] / first['bytes_per_step']:.1f}"
        cost = mean("relative_cost")
        shown.add_row(
            label(method),
            f"{first['learning_rate']:g}",
            percent([row["accuracy"] for row in seeds]),
            f"{mean('loss'):.4f}",
            f"{first['bytes_per_step']:,.0f}",
            fewer,
            "" if np.isnan(cost) else f"{cost:.2%}",
            f"{mean('seconds'):.1f}",
        )
    return shown


def title(header: record.Row) -> str:
    """What was trained, on what and by how many."""
    config = header["config"]
    return (
        f"{header['name']}: {config['model']} on {config['data']}, "
        f"{config['workers']} workers, {header['steps']:,} steps"
    )


def percent(shares: Sequence[float]) -> str:
    """The mean of shares in percent and, of several, their standard deviation."""
    mean = f"{np.mean(shares):.2%}"
    if len(shares) == 1:
        return mean
    return f"{mean} ±{np.std(shares, ddof=1) * 100:.2f}"
