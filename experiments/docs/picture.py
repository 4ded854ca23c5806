"""Draws the README's picture from a kept log: `python -m experiments.docs.picture`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from experiments.training import record
from experiments.training.methods import label
from experiments.training.plot import LOOKS, tidy
from experiments.training.study import save

PICTURE = Path(__file__).with_name("loss_against_bytes.png")
RUN = Path(__file__).parents[1] / "results" / "small_vit"


def draw(rows: Sequence[record.Row]) -> Figure:
    """Draws the training loss of each method against the bytes that a worker sent.

    Args:
      rows: of a run, as `record.read` returns them.

    Returns:
      The figure. Its background is white, so that it reads well on any other.
    """
    figure = Figure(figsize=(7.2, 3.6), dpi=130, layout="constrained")
    panel = figure.subplots()
    for method in rows[0]["config"]["methods"]:
        points = [
            (row["bytes"], row["loss"])
            for row in rows
            if row["kind"] == "evaluation" and row["method"] == method and row["step"]
        ]
        colour, dashes = LOOKS[method]
        panel.plot(*np.transpose(points), color=colour, ls=dashes, label=label(method))
    panel.set(xscale="log", xlabel="bytes sent by a worker", ylabel="training loss")
    panel.legend(frameon=False, ncols=2)
    tidy(panel)
    return figure


if __name__ == "__main__":
    save(draw(record.read(RUN)), PICTURE)
