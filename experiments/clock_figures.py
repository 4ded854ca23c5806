"""Draws losses against simulated seconds."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from experiments.plot import tidy

LABELS = {
    "all_reduce": "all-reduce SGD",
    "local_sgd": "local SGD",
    "d_psgd": "D-PSGD",
    "a_psgd": "A-PSGD",
    "ad_psgd": "AD-PSGD",
}
LOOKS = {
    "all_reduce": ("#000000", "-"),
    "local_sgd": ("#D55E00", "--"),
    "d_psgd": ("#999999", "--"),
    "a_psgd": ("#E69F00", "-."),
    "ad_psgd": ("#0072B2", "-"),
}


def draw(curves: Any, workers: int, slowdowns: Sequence[float]) -> Figure:
    """One panel for each slowdown of one worker, all of them with a line a method."""
    figure = Figure(figsize=(2.4 * len(slowdowns), 2.8), dpi=200, layout="constrained")
    panels = figure.subplots(1, len(slowdowns), sharey=True, squeeze=False)[0]
    for panel, slowdown in zip(panels, slowdowns, strict=True):
        for method, (colour, dashes) in LOOKS.items():
            curve = curves[method, workers, slowdown]
            panel.plot(
                curve.seconds,
                curve.losses,
                color=colour,
                linestyle=dashes,
                label=LABELS[method],
            )
        panel.set(yscale="log", xscale="log", xlabel="simulated seconds")
        panel.set_title(f"one worker {slowdown:g} times slower", fontsize="small")
        tidy(panel)
    panels[0].set(ylabel="training loss")
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=5, frameon=False)
    return figure
