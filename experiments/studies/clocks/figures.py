"""Draws losses against simulated seconds."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from experiments.studies.clocks.trajectories import Curve
from experiments.training.plot import legend, tidy
from experiments.training.record import Row
from experiments.utils.units import in_bits

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


def draw(curves: Mapping[tuple[str, int, float], Curve], config: Row) -> Figure:
    """Draws a panel for each slowdown of one worker, with a line for each method."""
    workers, slowdowns = config["workers"], config["slowdowns"]
    figure = Figure(figsize=(2.4 * len(slowdowns), 2.8), dpi=200, layout="constrained")
    panels = figure.subplots(1, len(slowdowns), sharey=True, squeeze=False)[0]
    for panel, slowdown in zip(panels, slowdowns, strict=True):
        for method, (colour, dashes) in LOOKS.items():
            curve = curves.get((method, workers, slowdown))
            if curve is None:  # The study was interrupted before this training.
                continue
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
    title = (
        f"perceptron on digits, {workers} workers, links of "
        f"{in_bits(config['bandwidth'])} with {1e3 * config['latency']:g} ms"
    )
    legend(figure, panels[0], title, columns=5)
    return figure
