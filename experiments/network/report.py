"""Prints the laboratory's results: a table for each rate, and the prediction errors."""

from collections.abc import Iterator, Sequence
from statistics import median

from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.table import Table

from experiments.network import figures
from experiments.network.lineup import label
from experiments.training.record import Row
from experiments.training.study import Study

MISS = 0.25
"""Predictions with a larger relative error are reported."""


def _tables(rows: Sequence[Row]) -> Iterator[Table | str]:
    """A table for each rate, an explanation of its columns, and prediction errors."""
    hosts, measured = rows[0]["config"]["hosts"], _measurements(rows)
    for rate in dict.fromkeys(row["rate"] for row in measured):
        yield table([row for row in measured if row["rate"] == rate], rate, hosts)
    yield (
        "Columns, for a host and a step. seconds: as measured. times: the first "
        "method's seconds over these. plan: seconds predicted from the step without a "
        "network. out, in: bytes that the kernel counted on the interface, with "
        "headers. message: bytes of the message. wire: bytes in collectives. An "
        "all-gather sends a message to every other host, an all-reduce sends its bytes "
        "twice round a ring."
    )
    yield from hits(measured)


def _figures(rows: Sequence[Row]) -> dict[str, Figure]:
    config = rows[0]["config"]
    title = (
        f"{config['model']} on digits, {config['hosts']} hosts of one worker, messages "
        f"of {100 * config['ratio']:g} %"
    )
    return {"figure": figures.draw(_measurements(rows), title)}


def _measurements(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["kind"] == "measurement"]


STUDY = Study("measurement", "rate", _tables, _figures)


def table(rows: Sequence[Row], rate: str, hosts: int) -> Table:
    """A table of all methods at one rate; `times` is relative to the first method."""
    shown = Table(
        title=f"{hosts} hosts, links: {rate}",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
    )
    shown.add_column("method", no_wrap=True)
    for column in ("seconds", "times", "plan", "out", "in", "message", "wire"):
        shown.add_column(column, justify="right", no_wrap=True)
    first = rows[0]["seconds"]
    for row in rows:
        shown.add_row(
            label(row["method"]),
            f"{row['seconds']:.3g}",
            f"{first / row['seconds']:.3g}",
            f"{row['predicted']:.3g}" if "predicted" in row else "",
            *(_size(row[name]) for name in ("out", "into")),
            *(_size(row[name]) for name in ("message_bytes", "wire_bytes")),
        )
    return shown


def hits(rows: Sequence[Row]) -> list[str]:
    """The median prediction error, and the predictions with a large error."""
    errors = {
        (row["rate"], row["method"]): row["predicted"] / row["seconds"] - 1
        for row in rows
        if "predicted" in row
    }
    if not errors:
        return []
    middle = median(map(abs, errors.values()))
    lines = [f"Predictions are off by {middle:.0%} in the median of {len(errors)}."]
    for (rate, method), error in errors.items():
        if abs(error) > MISS:
            lines.append(f"Missed: {label(method)} at {rate}, {error:+.0%}.")
    return lines


def _size(count: float | None) -> str:
    """Formats bytes as kB or MB."""
    if count is None:
        return ""
    return f"{count / 1e6:.3g} MB" if count >= 1e6 else f"{count / 1e3:.3g} kB"
