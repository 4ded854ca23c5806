"""Draws the laboratory's results: step times against rates, losses against seconds."""

from collections.abc import Collection, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.network.lineup import label
from experiments.training.plot import legend, tidy
from experiments.training.record import Row

LOOKS = {
    "dense": ("#000000", "-", "o"),
    "top_k": ("#0072B2", "-", "s"),
    "sampled_top_k": ("#56B4E9", "--", "D"),
    "random_block": ("#009E73", "-.", "^"),
    "two_phase": ("#000000", "-.", "<"),
    "power_sgd": ("#005321", "-", ">"),
    "vote": ("#D55E00", "--", "v"),
    "slowmo": ("#E69F00", ":", "P"),
    "streaming_diloco": ("#993F74", "-.", "p"),
    "sparse_loco": ("#A04000", "-", "h"),
    "ddp": ("#999999", "-", "X"),
    "ddp_fp16": ("#999999", "--", "*"),
}
OTHER = ("0.5", "-", ".")
_SMOOTH = 0.1  # The weight of a new loss in the running mean.


def draw(rows: Sequence[Row], title: str) -> Figure:
    """Draws a panel of step times, and a panel of losses for each rate."""
    rates = list(dict.fromkeys(row["rate"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure = Figure(figsize=(2.6 * (1 + len(rates)), 3), dpi=200, layout="constrained")
    first, *panels = figure.subplots(1, 1 + len(rates), squeeze=False)[0]
    for method in methods:
        those = {row["rate"]: row for row in rows if row["method"] == method}
        _step_times(
            first, method, [rates.index(rate) for rate in those], those.values()
        )
    first.set_xticks(range(len(rates)), rates, fontsize="x-small")
    first.set(yscale="log", ylabel="seconds a step", xlabel="rate of the links")
    first.set_title("measured, and predicted (+)", fontsize="small")
    tidy(first)
    for panel, rate in zip(panels, rates, strict=True):
        for row in rows:
            if row["rate"] == rate:
                colour, dashes, _ = LOOKS.get(row["method"], OTHER)
                smooth = _running_mean(row["losses"])
                panel.plot(row["ends"], smooth, color=colour, linestyle=dashes)
        panel.set(xscale="log", xlabel="seconds")
        panel.set_title(f"training loss, {rate}", fontsize="small")
        tidy(panel)
    legend(figure, first, title, columns=4)
    return figure


def _step_times(
    panel: Axes, method: str, places: Sequence[int], rows: Collection[Row]
) -> None:
    colour, dashes, marker = LOOKS.get(method, OTHER)
    panel.plot(
        places,
        [row["seconds"] for row in rows],
        color=colour,
        linestyle=dashes,
        marker=marker,
        markersize=4,
        label=label(method),
    )
    predicted = [row.get("predicted", np.nan) for row in rows]
    panel.plot(places, predicted, "+", color=colour, markersize=8)


def _running_mean(losses: Sequence[float]) -> list[float]:
    first, *others = np.asarray(losses, float).tolist()
    means = [first]
    for loss in others:
        means.append((1 - _SMOOTH) * means[-1] + _SMOOTH * loss)
    return means
