"""Draws residuals against their bound, and the order of gaps and gradients."""

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.studies.theory.claims import (
    COMPARED,
    Sweep,
    Trajectories,
    means,
)
from experiments.studies.theory.residuals import (
    delta,
    relative_residual,
    residual_bound,
)
from experiments.studies.theory.trajectories import D
from experiments.training.plot import entitle

# Okabe and Ito's colours; markers differ too, for print.
COMPRESSORS = {
    "scaled_sign": ("#E69F00", "D"),
    "top_k": ("#0072B2", "o"),
    "random_k": ("#009E73", "s"),
    "random_block": ("#D55E00", "^"),
}
COLOURS = dict(zip(COMPARED, ("#0072B2", "#D55E00", "#56B4E9"), strict=True))
MARKERS = "osD^vP*X"  # For 1, 2, 4, 8 workers and so on.


def draw(sweep: Sweep, trajectories: Trajectories) -> Figure:
    """Draws a panel each for the residual, the virtual iterate and the rate.

    Args:
      sweep: which settings belong together.
      trajectories: by their settings.
    """
    with rc_context({"font.size": 8, "axes.titlesize": 9, "legend.frameon": False}):
        figure = Figure(figsize=(10, 3.8), dpi=200, layout="constrained")
        panels = figure.subplots(1, 3)
        residual, gap, gradient = panels
        _draw_residual(residual, trajectories)
        _draw_gap(gap, sweep, trajectories)
        _draw_gradient(gradient, sweep, trajectories)
        for axes in panels:
            axes.set(xscale="log", yscale="log")
            axes.grid(color="0.9", linewidth=0.6)
            axes.legend(handlelength=1.5, labelspacing=0.3)
        last = next(iter(sweep.long.values()))[-1]
        entitle(
            figure,
            f"GMC and GMC+ on one regression, {D} unknowns; where they are fixed, K = "
            f"{last.workers} workers and T = {last.steps} steps",
        )
    return figure


def _draw_residual(axes: Axes, trajectories: Trajectories) -> None:
    for compressor, (colour, marker) in COMPRESSORS.items():
        those = [(s, w) for s, w in trajectories.items() if s.compressor == compressor]
        axes.plot(
            [delta(setting, trajectory) for setting, trajectory in those],
            [relative_residual(trajectory) for _, trajectory in those],
            marker,
            color=colour,
            markersize=4,
            alpha=0.6,
            label=compressor,
        )
    kept = np.geomspace(0.04, 0.9, 100)
    axes.plot(kept, [residual_bound(each) for each in kept], "k", label="bound")
    axes.set(
        title="(a) the residual; a marker is a trajectory",
        xlabel="delta of the compressor",
        ylabel="sup E|e|² / sup E|input|²",
    )


def _draw_gap(axes: Axes, sweep: Sweep, trajectories: Trajectories) -> None:
    for name, line in sweep.gap.items():
        rates = [setting.rate for setting in line]
        gaps = np.sqrt([trajectories[setting].gap for setting in line])
        marker = "o" if name.startswith("GMC,") else "+"
        axes.plot(rates, gaps, marker, color=COLOURS[name], label=name)
        ideal = gaps[0] * np.array(rates) / rates[0]
        axes.plot(rates, ideal, color="0.6", linewidth=0.8, zorder=0)
    axes.plot([], color="0.6", linewidth=0.8, label="proportional to lr")
    axes.set(
        title="(b) the virtual iterate's gap",
        xlabel="learning rate",
        ylabel="sup of the root of E|z - w|²",
    )


def _draw_gradient(axes: Axes, sweep: Sweep, trajectories: Trajectories) -> None:
    drawn = {}
    for name, line in sweep.lines.items():
        heights = means(trajectories, line).mean(axis=1)
        for setting, mean in zip(line, heights, strict=True):
            product = setting.workers * setting.steps
            axes.plot(
                product,
                mean,
                MARKERS[setting.workers.bit_length() - 1],
                color=COLOURS[name],
                markersize=4,
                alpha=0.7,
            )
            drawn[product] = mean
    for k in sorted({s.workers for line in sweep.lines.values() for s in line}):
        marker = MARKERS[k.bit_length() - 1]
        axes.plot([], [], marker, color="0.5", markersize=4, label=f"K = {k}")
    products = np.array([min(drawn), max(drawn)])
    ideal = drawn[products[1]] * np.sqrt(products[1] / products)
    axes.plot(products, ideal, "0.6", linewidth=0.8, label="power -1/2", zorder=0)
    axes.set(
        title="(c) the rate; colours as in (b)",
        xlabel="steps times workers, K T",
        ylabel="mean over t of E|grad f(w_t)|²",
    )
