"""Tables of predictions, and their conclusions in words."""

import math
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from experiments.utils.units import in_bits
from gmc_jax.costs.planning import DENSE, Prediction

_AT_EVERY_STEP = ("GMC", "PowerSGD", "QSGD", "TernGrad", "signSGD")


def verdict(row: Prediction, dense: Prediction) -> str:
    """Says whether a method pays and, if not, why and up to which ratio it would."""
    if row.name == dense.name:
        return ""
    if row.breaks_even:
        return f"{row.speed_up:.3g} times faster"
    if row.traffic.bytes > dense.traffic.bytes:
        why = "useless: sends more than dense"
    else:
        why = "slower: encoding and latency cost more than compression saves"
    if row.break_even_ratio:
        why += f"; pays up to {_percent(row.break_even_ratio)}"
    return why


def times(rows: Sequence[Prediction], title: str) -> Table:
    """A table with a line for each pattern: the seconds of a step and of its parts."""
    shown = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=title,
        caption="Seconds of a step on average, and the dense step's seconds over "
        "these. With a delay the network works beside the computation. This predicts "
        "the time of a step, not the accuracy after it: a method that sends less may "
        "need more steps.",
        title_justify="left",
        caption_justify="left",
    )
    shown.add_column("method")
    for column in ("ratio", "encode", "network", "step", "times"):
        shown.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        times = (row.encoding, row.network, row.seconds, row.speed_up)
        shown.add_row(
            row.name,
            _percent(row.ratio) if row.ratio else "",
            *(f"{number:.3g}" for number in times),
            style=_style(row),
        )
    return shown


def of_the_link(rows: Sequence[Prediction]) -> Table:
    """A table with a line for each pattern: its use of the link."""
    shown = Table(
        box=SIMPLE_HEAD,
        padding=0,  # Seven columns have to fit 80 characters.
        caption="GB out: what a worker sends in a step, on average. peak: in the "
        "longest step. busy: the share of the time in which the link communicates. "
        "used: the share of its capacity. longest: seconds of the longest step.",
        caption_justify="left",
    )
    shown.add_column("method")
    for column in ("ratio", "GB out", "peak", "busy", "used", "longest"):
        shown.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        shown.add_row(
            row.name,
            _percent(row.ratio) if row.ratio else "",
            f"{row.traffic.bytes / 1e9:.3g}",
            f"{row.peak / 1e9:.3g}",
            f"{row.busy:.0%}",
            f"{row.utilisation:.0%}",
            f"{row.longest:.3g}",
            style=_style(row),
        )
    return shown


def _style(row: Prediction) -> str:
    if row.name == DENSE.name:
        return "bold"
    return "" if row.breaks_even else "dim"


def in_words(rows: Sequence[Prediction]) -> list[str]:
    """Says which method is fastest, and where each compressed method breaks even."""
    best, dense = rows[0], _dense(rows)
    if best is dense:
        lines = ["Nothing is faster than the dense all-reduce on this link."]
    else:
        lines = [
            f"Fastest: {_named(best)}, {best.seconds:.3g} s a step, "
            f"{best.speed_up:.3g} times faster than the dense all-reduce "
            f"({dense.seconds:.3g} s)."
        ]
        if not best.name.startswith(_AT_EVERY_STEP):
            every_step = [row for row in rows if row.name.startswith(_AT_EVERY_STEP)]
            lines += [
                f"Fastest that synchronises at every step: {_named(row)}, "
                f"{row.seconds:.3g} s."
                for row in every_step[:1]
                if row.breaks_even
            ]
    ratios = {
        row.name: row.break_even_ratio
        for row in rows
        if row.break_even_ratio is not None
    }
    for name, ratio in ratios.items():
        pays = f"pays up to a ratio of {_percent(ratio)}" if ratio else "never pays"
        links = [
            f"at {_percent(row.ratio or 1)} on {_links(row.faster_between)}"
            for row in rows
            if row.name == name
        ]
        lines.append(f"Break even: {name} {pays}; {', '.join(links)}.")
    for row in rows:
        if row is not dense and not row.breaks_even:
            lines.append(f"Does not pay: {_named(row)}, {verdict(row, dense)}.")
    return lines


def _named(row: Prediction) -> str:
    """A pattern and its ratio, if it has one."""
    return f"{row.name} at {_percent(row.ratio)}" if row.ratio else row.name


def _links(between: tuple[float, float] | None) -> str:
    """The bandwidths at which a method pays, in words."""
    if between is None:
        return "no link"
    low, high = between
    if math.isinf(high):
        return f"links from {in_bits(low)}" if low else "any link"
    return f"links up to {in_bits(high)}"


def _dense(rows: Sequence[Prediction]) -> Prediction:
    return next(row for row in rows if row.name == DENSE.name)


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.3g} %"
