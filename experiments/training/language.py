"""Tables and figures of runs on text: loss against steps, bytes and seconds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from experiments.training.methods import METHODS, label
from experiments.training.plot import LOOKS, legend, tidy
from experiments.training.record import Row
from experiments.training.table import title
from experiments.utils.tables import narrow

_ALONG = {
    "step": "steps",
    "bytes": "bytes sent by a worker",
    "simulated_seconds": "simulated seconds",
}


class _Curve(NamedTuple):
    """The test loss of a method, as the mean over its seeds.

    Attributes:
      rows: the evaluations of the first seed.
      losses: the mean loss at each of them.
      low: the least loss of a seed, at each.
      high: the greatest.
    """

    rows: Sequence[Row]
    losses: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]

    def seconds_to(self, loss: float) -> float:
        """The simulated seconds until the mean was `loss` or less, or infinity."""
        for row, reached in zip(self.rows, self.losses, strict=True):
            if reached <= loss:
                return row["simulated_seconds"]
        return np.inf


def has_test_losses(rows: Sequence[Row]) -> bool:
    """Whether the run was on text, and evaluated the loss on the test text."""
    return any("sample" in row and "test_loss" in row for row in rows)


def comparison(rows: Sequence[Row]) -> list[Table | str]:
    """A table with a line for each finished method, then what each has written."""
    config, curves = rows[0]["config"], _curves(rows)
    timed = config.get("bandwidth") is not None
    about = (
        "After the last step, on the held-out text; of several seeds the mean and the "
        "standard deviation. MB: what a worker sends in the training."
    )
    if timed:
        about += (
            f" Seconds: simulated, {config['bandwidth']} with {config['latency']}, "
            f"{config['step_time']} of computation in a step. Sooner: the seconds of "
            "the dense run, over those until the method's loss was as low."
        )
    shown = narrow("method", title(rows[0]), about)
    shown.padding = 0  # Eight columns have to fit 80 characters.
    columns = ["rate", "loss", "per-\nplexity", "MB", "times\nfewer"]
    columns += ["seconds", "times\nsooner"] * timed
    for column in columns:
        shown.add_column(column, justify="right")
    summaries = [row for row in rows if row["kind"] == "summary"]
    for method in config["methods"]:
        seeds = [row for row in summaries if row["method"] == method]
        if not seeds:
            continue
        first, losses = seeds[0], [row["test_loss"] for row in seeds]
        sent = first["bytes_per_step"]
        spread = f"{np.std(losses, ddof=1):.3f}" if len(losses) > 1 else ""
        cells = [
            f"{first['learning_rate']:g}",
            f"{np.mean(losses):.3f}" + (spread and f" ±{spread.lstrip('0')}"),
            f"{np.exp(np.mean(losses)):.2f}",
            f"{sent * first['step'] / 1e6:,.3g}",
            f"{first['dense_bytes_per_step'] / sent:,.4g}" if sent else "none",
        ]
        if timed:
            cells += [f"{first['simulated_seconds']:,.0f}", _sooner(curves, method)]
        shown.add_row(label(method), *cells)
    return [shown, *_samples(summaries)]


def draw(rows: Sequence[Row]) -> Figure:
    """Draws the test loss against steps, bytes and, for a link, simulated seconds.

    A dotted line marks the last loss of the dense method. For several seeds a line is
    the mean, and a band reaches from the least to the greatest loss.

    Raises:
      ValueError: if there is no evaluation after a step.
    """
    curves = _curves(rows)
    if not curves:
        raise ValueError(
            "there is nothing to draw yet: no method was evaluated after a step. Start "
            "the run again; it continues."
        )
    along = [name for name in _ALONG if name in next(iter(curves.values())).rows[0]]
    figure = Figure(figsize=(3.4 * len(along), 4.2), dpi=200, layout="constrained")
    panels = figure.subplots(1, len(along), sharey=True)
    for name, panel in zip(along, panels, strict=True):
        for method, curve in curves.items():
            colour, dashes = LOOKS.get(method, ("0.5", "-"))
            where = [row[name] for row in curve.rows]
            panel.plot(
                where, curve.losses, color=colour, linestyle=dashes, label=label(method)
            )
            panel.fill_between(
                where, curve.low, curve.high, color=colour, alpha=0.15, lw=0
            )
        if np.isfinite(target := _dense_loss(curves)):
            panel.axhline(target, color="0.4", linestyle=":", linewidth=0.8)
        panel.set(xlabel=_ALONG[name], xscale="linear" if name == "step" else "log")
        tidy(panel)
    panels[0].set(ylabel="loss on held-out text")
    starts = [curve.losses[0] for curve in curves.values()]
    panels[0].set_ylim(top=float(np.nanmedian(starts)))
    legend(figure, panels[0], title(rows[0]), columns=4)
    return figure


def _curves(rows: Sequence[Row]) -> dict[str, _Curve]:
    """The curve of each method with an evaluation, from its first step on."""
    found = {}
    for method in rows[0]["config"]["methods"]:
        measured = [
            row
            for row in rows
            if row["kind"] == "evaluation" and row["method"] == method and row["step"]
        ]
        by_step: dict[int, list[Row]] = {}
        for row in measured:
            by_step.setdefault(row["step"], []).append(row)
        if by_step:
            losses = [[row["test_loss"] for row in each] for each in by_step.values()]
            found[method] = _Curve(
                [each[0] for each in by_step.values()],
                [float(np.mean(each)) for each in losses],
                list(map(min, losses)),
                list(map(max, losses)),
            )
    return found


def _dense(curves: dict[str, _Curve]) -> _Curve | None:
    """The curve of the first dense method."""
    for method, curve in curves.items():
        if method in METHODS and METHODS[method].dense:
            return curve
    return None


def _dense_loss(curves: dict[str, _Curve]) -> float:
    dense = _dense(curves)
    return dense.losses[-1] if dense else np.nan


def _sooner(curves: dict[str, _Curve], method: str) -> str:
    """How many times sooner than the dense run a method was as low as it ended."""
    if (dense := _dense(curves)) is None:
        return ""
    seconds = curves[method].seconds_to(dense.losses[-1])
    times = dense.rows[-1]["simulated_seconds"] / seconds
    return f"{times:.1f}" if times else "never"


def _samples(summaries: Sequence[Row]) -> list[str]:
    """What the first seed of each method has written after the test text's start."""
    firsts = {row["method"]: row for row in reversed(summaries)}
    return [
        f"{label(method)} writes:\n{firsts[method]['sample']}\n"
        for method in dict.fromkeys(row["method"] for row in summaries)
    ]
