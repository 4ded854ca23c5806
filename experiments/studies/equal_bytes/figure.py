"""A figure of losses at equal steps and at equal bytes, a line for each method."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.studies.equal_bytes.table import lines, names_of
from experiments.training.methods import label
from experiments.training.plot import legend, tidy
from experiments.training.record import Row

LOOKS = (("#000000", "o"), ("#0072B2", "s"), ("#D55E00", "^"))


def figures(rows: Sequence[Row]) -> Mapping[str, Figure]:
    """Draws the mean loss of each method; a bar reaches from the least to the greatest.

    Methods are in the order of their loss at equal steps on the last problem.

    Raises:
      ValueError: if no method is finished.
    """
    header, found = rows[0]["config"], lines(rows)
    methods = names_of(found, header["methods"])
    if not methods:
        raise ValueError(
            "there is nothing to draw yet: no method is trained with all seeds. Start "
            "the study again; it goes on."
        )
    last = [each for each in found.values() if each][-1]
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
        for column, (words, look) in enumerate(zip(labels, LOOKS, strict=False)):
            places = [i for i, method in enumerate(methods) if method in of_problem]
            losses = np.array(
                [of_problem[methods[i]].losses[:, column] for i in places]
            ).reshape(len(places), -1)
            losses = np.where(np.isfinite(losses), losses, np.nan)
            means = losses.mean(axis=1)
            colour, marker = look
            panel.plot(
                *(means, places),
                marker=marker,
                markersize=3.5,
                color=colour,
                linestyle="none",
                label=words,
            )
            panel.hlines(places, losses.min(axis=1), losses.max(axis=1), colour, lw=0.8)
        panel.set(xscale="log", xlabel=f"training loss, {name}")
        tidy(panel)
    shown = [label(method) for method in methods]
    panels[0].set_yticks(range(len(methods)), shown, fontsize="x-small")
    panels[0].invert_yaxis()
    workers = next(iter(header["problems"].values()))["workers"]
    legend(figure, panels[0], f"equal_bytes: {workers} workers", columns=3)
    return {"figure": figure}
