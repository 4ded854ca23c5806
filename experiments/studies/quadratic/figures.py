"""Draws paths in the plane, and distances to the optimum."""

from collections.abc import Mapping
from contextlib import AbstractContextManager

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.training.methods import label as method_label
from experiments.training.plot import LOOKS, entitle

# In addition to the common colours, so that lines differ in print too.
MARKERS = {
    "dmsgd": "s",
    "dgc_unmasked": "v",
    "dgc": "^",
    "gmc_server_momentum": "D",
    "gmc": "o",
}
CLOSE = 1.2  # Half the width of the close-up; DGC without masking circles at 0.94.


def tail(values: np.ndarray) -> np.ndarray:
    """The last quarter of values, by which methods are compared."""
    return values[-max(1, len(values) // 4) :]


def draw_paths(
    paths: Mapping[str, np.ndarray],
    minimisers: np.ndarray,
    optimum: np.ndarray,
    title: str,
) -> Figure:
    """Draws a column for each method: its whole path above, its last quarter below.

    Args:
      paths: maps a method to its points [steps + 1, 2].
      minimisers: of the workers' quadratics, [workers, 2].
      optimum: the minimiser of their mean, [2].
      title: of the figure.
    """
    with _fonts():
        size = (2.1 * len(paths), 4.8)
        figure = Figure(figsize=size, dpi=200, layout="constrained")
        rows = figure.subplots(2, len(paths), squeeze=False)
        reach = max(np.abs(path).max() for path in [*paths.values(), minimisers]) + 2
        for (whole, close), (method, path) in zip(rows.T, paths.items(), strict=True):
            end = tail(path)
            _draw_path(whole, path, method, optimum, rings=(5, 10, 15, 20, 25))
            _draw_path(close, end, method, optimum, rings=(0.25, 0.5, 0.75, 1))
            whole.plot(*minimisers.T, "x", color="0.4", label="minimiser of one worker")
            whole.set(xlim=(-reach, reach), ylim=(-reach, reach))
            close.set(
                xlim=(optimum[0] - CLOSE, optimum[0] + CLOSE),
                ylim=(optimum[1] - CLOSE, optimum[1] + CLOSE),
            )
            whole.set_title(method_label(method))
            distance = np.linalg.norm(end - optimum, axis=1).mean()
            close.set_title(f"mean distance {distance:.2g}")
        for axes in rows[:, 1:].flat:
            axes.set_yticklabels([])
        rows[0, 0].set_ylabel("all steps")
        rows[1, 0].set_ylabel("last quarter, close-up")
        handles, labels = rows[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(handles))
        entitle(figure, title)
    return figure


def draw_distances(
    panels: Mapping[str, Mapping[str, np.ndarray]], every_steps: int, title: str
) -> Figure:
    """Draws a panel for each problem, with a line of distances for each method.

    The panel is fitted to the compressed methods. The line of the dense method leaves
    it at the bottom if it gets much closer.

    Args:
      panels: maps a title to a mapping of methods to distances [points].
      every_steps: steps from one point to the next.
      title: of the figure.
    """
    with _fonts():
        size = (2.7 * len(panels), 3.4)
        figure = Figure(figsize=size, dpi=200, layout="constrained")
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (name, distances) in zip(row, panels.items(), strict=True):
            for place, (method, distance) in enumerate(distances.items()):
                colour, _ = LOOKS[method]
                every = max(1, len(distance) // 8)
                axes.semilogy(
                    every_steps * np.arange(len(distance)),
                    distance,
                    color=colour,
                    marker=MARKERS[method],
                    markersize=5,
                    markeredgecolor="white",
                    markeredgewidth=0.5,
                    markevery=(place * every // len(distances), every),
                    linewidth=1,
                    label=method_label(method),
                )
            sparse = [
                tail(distance).mean()
                for method, distance in distances.items()
                if method != "dmsgd"
            ]
            start = next(iter(distances.values()))[0]
            if sparse:
                axes.set_ylim(max(min(sparse) / 4, 1e-16), 2 * start)
            axes.set(title=name, xlabel="step")
            axes.grid(color="0.9", linewidth=0.6)
        row[0].set_ylabel("distance to the optimum")
        handles, labels = row[0].get_legend_handles_labels()
        columns = min(len(handles), 3 * len(panels))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)
        entitle(figure, title)
    return figure


def _fonts() -> AbstractContextManager[None]:
    return rc_context({"font.size": 9, "axes.titlesize": 9, "legend.frameon": False})


def _draw_path(
    axes: Axes,
    path: np.ndarray,
    method: str,
    optimum: np.ndarray,
    rings: tuple[float, ...],
) -> None:
    (colour, _), marker = LOOKS[method], MARKERS[method]
    angle = np.linspace(0, 2 * np.pi, 200)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    # The level sets of the mean of the two quadratics are circles.
    for radius in rings:
        level = optimum[:, None] + radius * circle
        axes.plot(*level, color="0.88", linewidth=0.6, zorder=0)
    axes.plot(*path.T, color=colour, linewidth=0.9)
    axes.plot(*path[-2:].T, color=colour, marker=marker, markersize=4, linestyle="none")
    axes.plot(
        *optimum,
        "*",
        color="#009E73",
        markersize=13,
        markerfacecolor="none",
        label="optimum of both",
    )
    axes.set_aspect("equal")
