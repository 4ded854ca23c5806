"""Tables of predictions, and their conclusions in words."""

import math
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from experiments.utils.units import in_bits
from gmc_jax.costs.planning import DENSE, Prediction
from gmc_jax.costs.worth import ORDER

_AT_EVERY_STEP = (
    *("GMC", "Adam", "PowerSGD", "QSGD", "TernGrad", "signSGD", "Distributed Lion"),
)

_NO_LOSSES = (
    " Losses are not ranked: the first rows may be worth less than training alone. "
    "Give --steps to judge them."
)
HEADS = {
    "safe": "Safe",
    "aggressive": "Aggressive",
    "as never meeting": "Worth no more than never to meet,",
}
MEANINGS = {
    "safe": "sent: how often every entry is sent in the training. lag: steps until a "
    "worker's news has arrived, on average. met: how often workers meet. seconds: "
    "of the whole training.",
    "aggressive": "These may end far above dense; the reasons are below.",
    "as never meeting": "Most news never arrives. In `never meeting` workers train "
    "alone and average once, at the end.",
}


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
        "need more steps, or never get there." + ("" if rows[0].worth else _NO_LOSSES),
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


def of_the_training(rows: Sequence[Prediction], steps: int) -> list[Table]:
    """A table for each verdict: what the whole training takes, and what arrives."""
    tables = []
    for verdict in ORDER:
        judged = [(row, row.worth) for row in rows if row.worth]
        chosen = [(row, worth) for row, worth in judged if worth.verdict == verdict]
        shown = Table(
            box=SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            title=f"{HEADS[verdict]} in {steps:,} steps",
            caption=MEANINGS[verdict],
            title_justify="left",
            caption_justify="left",
        )
        shown.add_column("method")
        for column in ("ratio", "sent", "lag", "met", "seconds"):
            shown.add_column(column, justify="right", no_wrap=True)
        for row, worth in chosen:
            numbers = (worth.coverage, worth.lag, worth.meetings)
            shown.add_row(
                row.name,
                _percent(row.ratio) if row.ratio else "",
                *map(_short, numbers),
                _short(row.seconds * worth.steps),
                style=_style(row),
            )
        tables.append(shown)
    return tables


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
    """Says which method comes first, and where each compressed method breaks even."""
    best, dense = rows[0], _dense(rows)
    first = "First of the safe" if best.worth else "Fastest"
    if best is dense and best.worth:
        lines = ["Nothing that is safe is faster than the dense all-reduce."]
    elif best is dense:
        lines = ["Nothing is faster than the dense all-reduce on this link."]
    else:
        lines = [
            f"{first}: {_named(best)}, {best.seconds:.3g} s a step, "
            f"{best.speed_up:.3g} times faster than the dense all-reduce "
            f"({dense.seconds:.3g} s)."
        ]
        if not best.name.startswith(_AT_EVERY_STEP):
            every_step = [
                row
                for row in rows
                if row.name.startswith(_AT_EVERY_STEP) and _is_safe(row)
            ]
            lines += [
                f"{first} that synchronises at every step: {_named(row)}, "
                f"{row.seconds:.3g} s."
                for row in every_step[:1]
                if row.breaks_even
            ]
    if not best.worth:
        lines.append("This ranks seconds, not losses. Give --steps to judge both.")
    lines += [
        f"{row.worth.verdict.capitalize()}: {_named(row)}, {row.worth.reason}."
        for row in rows
        if row.worth and not _is_safe(row) and row.breaks_even
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


def in_python(rows: Sequence[Prediction]) -> Text:
    """Writes the methods that pay as Python, a line each."""
    lines = ["In Python, with a learning rate `rate`:"]
    for row in rows:
        is_chosen = row.breaks_even or row.name == DENSE.name
        if is_chosen and row.expression and _may_pay(row):
            lines.append(f"  {_named(row)}:\n    {row.expression}")
    return Text("\n".join(lines))


def _is_safe(row: Prediction) -> bool:
    """Whether nothing speaks against a method, as far as that is known."""
    return row.worth is None or row.worth.verdict == "safe"


def _may_pay(row: Prediction) -> bool:
    return row.worth is None or row.worth.verdict != "as never meeting"


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


def _short(number: float) -> str:
    """Three digits, in thousands or millions where a number is large."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return f"{number:.3g}"


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.3g} %"
