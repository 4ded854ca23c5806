"""Draws losses above the minimum against component gradients."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.studies.pca.problem import SAMPLES, D
from experiments.training.plot import entitle, tidy

LABELS = {"svrg": "SVRG", "katyusha_xs": "Katyusha X^s", "katyusha_xw": "Katyusha X^w"}
LOOKS = {"svrg": "#999999", "katyusha_xs": "#0072B2", "katyusha_xw": "#56B4E9"}


def draw(
    best: Mapping[str, tuple[float, Sequence[np.ndarray]]], workers: int
) -> Figure:
    """Draws a line for every trajectory.

    Args:
      best: the best rate of each method, and its trajectories at this rate.
      workers: the number of workers.

    Raises:
      ValueError: if there is no trajectory.
    """
    if not best:
        raise ValueError(
            f"there is nothing to draw yet: no trajectory of {workers} workers was "
            "computed. Run the study again."
        )
    figure = Figure(figsize=(5, 3.2), dpi=200, layout="constrained")
    panel = figure.subplots()
    for method, (rate, trajectories) in best.items():
        for number, gaps in enumerate(trajectories):
            needed = 3 * SAMPLES * np.arange(len(gaps))
            label = f"{LABELS[method]}, rate {rate:g}" if not number else None
            panel.plot(needed, gaps, color=LOOKS[method], lw=0.9, label=label)
    panel.set(yscale="log", xlabel="component gradients", ylabel="loss above minimum")
    tidy(panel)
    panel.legend(frameon=False)
    problem = f"least squares, {SAMPLES:,} samples, {D} unknowns"
    entitle(figure, f"{problem}, {workers} workers")
    return figure
