"""Tables of a run."""

from collections.abc import Sequence

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from experiments.training import record
from experiments.training.methods import label


def class_counts(counts: Sequence[Sequence[int]]) -> Table:
    """A table of the samples of each class (a column) that each worker (a row) holds.

    For more than ten classes, it shows how many classes a worker holds, and the class
    with the most samples.
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
    """A table with one line for each finished method, in the order of the run.

    For several seeds it shows the mean, and for accuracy the standard deviation too.
    """
    header, config = rows[0], rows[0]["config"]
    summaries = [row for row in rows if row["kind"] == "summary"]
    shown = Table(
        box=SIMPLE_HEAD,
        padding=0,
        title=title(header),
        caption=(
            "Evaluated after the last step. Bytes: what a worker sends in a step. RCC: "
            "the entries that the paper's server receives and sends, relative to "
            "dense. Seconds: of training steps only."
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

        fewer = "none"  # A single worker sends nothing.
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
    """The run's name, network, data set, workers and steps."""
    config = header["config"]
    return (
        f"{header['name']}: {config['model']} on {config['data']}, "
        f"{config['workers']} workers, {header['steps']:,} steps"
    )


def percent(shares: Sequence[float]) -> str:
    """The mean of shares in percent and, for several, their standard deviation."""
    mean = f"{np.mean(shares):.2%}"
    if len(shares) == 1:
        return mean
    return f"{mean} ±{np.std(shares, ddof=1) * 100:.2f}"
