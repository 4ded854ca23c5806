"""The command `plot`: loss and accuracy against steps and bytes, as a figure."""

from collections.abc import Sequence
from pathlib import Path

import tyro
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from rich.console import Console

from experiments import record
from experiments.methods import METHODS

# Okabe and Ito's colours, which stay apart in every kind of colour vision, and dashes,
# which stay apart without colour.
LOOKS = {
    "dmsgd": ("#000000", "-"),
    "ef_sgd": ("#999999", "--"),
    "ef_momentum": ("#009E73", "-."),
    "dgc": ("#E69F00", "--"),
    "dgc_unmasked": ("#D55E00", ":"),
    "gmc_server_momentum": ("#56B4E9", "-."),
    "gmc_rate_inside": ("#CC79A7", ":"),
    "gmc": ("#0072B2", "-"),
}


def main(
    path: tyro.conf.Positional[Path | None] = None,
    results: Path = Path("results"),
    output: Path | None = None,
) -> None:
    """Draws what a run recorded.

    Args:
      path: the directory of the run; the latest in `results` by default.
      results: the directory of all results.
      output: the file to write; `figure.png` beside the record by default.
    """
    path = path or record.latest(results)
    output = output or path / "figure.png"
    draw(record.read(path)).savefig(output)
    Console().print(f"drew {output}")


def draw(rows: Sequence[record.Row]) -> Figure:
    """Draws what was measured after the start, in four panels that share a legend."""
    figure = Figure(figsize=(7.2, 5.4), dpi=200, layout="constrained")
    panels = figure.subplots(2, 2, sharex="col", sharey="row")
    for method in rows[0]["config"]["methods"]:
        points = [
            row
            for row in rows
            if row["kind"] == "evaluation" and row["method"] == method and row["step"]
        ]
        colour, dashes = LOOKS[method]
        for quantity, line in zip(("loss", "accuracy"), panels, strict=True):
            for along, panel in zip(("step", "bytes"), line, strict=True):
                panel.plot(
                    [point[along] for point in points],
                    [point[quantity] for point in points],
                    color=colour,
                    linestyle=dashes,
                    label=METHODS[method].label,
                )
    (losses, _), (accuracies, sent) = panels
    losses.set(ylabel="training loss", yscale="log")
    accuracies.set(ylabel="test accuracy", xlabel="steps")
    accuracies.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    sent.set(xlabel="bytes sent by a worker", xscale="log")
    for panel in panels.flat:
        panel.grid(color="0.9", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *losses.get_legend_handles_labels(),
        loc="outside upper center",
        ncols=3,
        frameon=False,
    )
    return figure
