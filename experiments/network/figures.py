"""Draws what the laboratory saw: step times against rates, losses against seconds."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.network.contenders import CONTENDERS
from experiments.plot import tidy
from experiments.record import Row

LOOKS = {
    "dense": ("#000000", "-", "o"),
    "top_k": ("#0072B2", "-", "s"),
    "sampled_top_k": ("#56B4E9", "--", "D"),
    "random_block": ("#009E73", "-.", "^"),
    "vote": ("#D55E00", "--", "v"),
    "slowmo": ("#E69F00", ":", "P"),
    "ddp": ("#999999", "-", "X"),
    "ddp_fp16": ("#999999", "--", "*"),
}
_SMOOTH = 0.1  # The weight of a new loss in the running mean that is drawn.


def draw(rows: Sequence[Row]) -> Figure:
    """A panel of step times, and one of losses for each rate."""
    rates = list(dict.fromkeys(row["rate"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure = Figure(figsize=(2.6 * (1 + len(rates)), 3), dpi=200, layout="constrained")
    first, *panels = figure.subplots(1, 1 + len(rates), squeeze=False)[0]
    for method in methods:
        _step_times(first, method, [row for row in rows if row["method"] == method])
    first.set_xticks(range(len(rates)), rates, fontsize="x-small")
    first.set(yscale="log", ylabel="seconds a step", xlabel="rate of the links")
    first.set_title("measured, and predicted (+)", fontsize="small")
    tidy(first)
    for panel, rate in zip(panels, rates, strict=True):
        for row in rows:
            if row["rate"] == rate:
                colour, dashes, _ = LOOKS[row["method"]]
                smooth = _running_mean(row["losses"])
                panel.plot(row["ends"], smooth, color=colour, linestyle=dashes)
        panel.set(xscale="log", xlabel="seconds")
        panel.set_title(f"training loss, {rate}", fontsize="small")
        tidy(panel)
    handles = first.get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=4, frameon=False)
    return figure


def _step_times(panel: Axes, method: str, rows: Sequence[Row]) -> None:
    colour, dashes, marker = LOOKS[method]
    places = range(len(rows))
    panel.plot(
        places,
        [row["seconds"] for row in rows],
        color=colour,
        linestyle=dashes,
        marker=marker,
        markersize=4,
        label=CONTENDERS[method].label,
    )
    predicted = [row.get("predicted", np.nan) for row in rows]
    panel.plot(places, predicted, "+", color=colour, markersize=8)


def _running_mean(losses: Sequence[float]) -> list[float]:
    means = [losses[0]]
    for loss in losses[1:]:
        means.append((1 - _SMOOTH) * means[-1] + _SMOOTH * loss)
    return means
