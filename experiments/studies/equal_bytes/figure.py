"""A figure of losses at equal steps and at equal bytes, a line for each method."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.studies.equal_bytes.table import lines, names_of
from experiments.training.methods import label
from experiments.training.plot import legend, tidy
from experiments.training.record import Row

# Points often coincide, so that each look leaves the ones below it visible.
LOOKS = (
    {"color": "#000000", "marker": "o", "markersize": 6.0, "fillstyle": "none"},
    {"color": "#0072B2", "marker": "s", "markersize": 3.5, "fillstyle": "full"},
    {"color": "#D55E00", "marker": "^", "markersize": 2.5, "fillstyle": "full"},
)


def figures(rows: Sequence[Row]) -> Mapping[str, Figure]:
    """Draws the mean loss of each method; a bar reaches from the least to the greatest.

    Methods are in the order of their loss at equal steps on the last problem.

    Raises:
      ValueError: if no method is finished.
    """
    header = rows[0]["config"]
    found = {name: each for name, each in lines(rows).items() if each}
    methods = names_of(found, header["methods"])
    if not methods:
        raise ValueError(
            "there is nothing to draw yet: no method is trained with all seeds. Start "
            "the study again; it goes on."
        )
    last = list(found.values())[-1]
    methods.sort(key=lambda name: last[name].means[0] if name in last else np.inf)
    figure = Figure(
        figsize=(7.2, 1.6 + 0.17 * len(methods)), dpi=200, layout="constrained"
    )
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    labels = [
        "equal steps",
        *(f"{share:.0%} of the bytes" for share in header["budgets"]),
    ]
    for panel, (name, of_problem) in zip(panels, found.items(), strict=True):
        least, greatest = np.inf, 0.0
        for column, (words, look) in enumerate(zip(labels, LOOKS, strict=False)):
            places = [i for i, method in enumerate(methods) if method in of_problem]
            losses = np.array(
                [of_problem[methods[i]].losses[:, column] for i in places]
            ).reshape(len(places), -1)
            losses = np.where(np.isfinite(losses), losses, np.nan)
            means = losses.mean(axis=1)
            panel.plot(means, places, linestyle="none", label=words, **look)
            ends = losses.min(axis=1), losses.max(axis=1)
            panel.hlines(places, *ends, look["color"], linewidth=0.8)
            least, greatest = np.nanmin([least, *means]), np.nanmax([greatest, *means])
        panel.set(xlabel=f"training loss, {name}")
        if greatest > 10 * least > 0:
            panel.set_xscale("log")
        tidy(panel)
    shown = [label(method) for method in methods]
    panels[0].set_yticks(range(len(methods)), shown, fontsize="x-small")
    panels[0].set_ylim(len(methods) - 0.5, -0.5)
    workers = next(iter(header["problems"].values()))["workers"]
    title = f"equal_bytes: {workers} workers, mean and range of {header['seeds']} seeds"
    legend(figure, panels[0], title, columns=3)
    return {"figure": figure}
