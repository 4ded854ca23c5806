"""Figures of a run: loss and accuracy against epochs and bytes."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from experiments.training import record
from experiments.training.local_methods import BASES, SLOW_MOMENTA
from experiments.training.methods import DETACHMENTS, label
from experiments.training.table import title

# Okabe and Ito's colours can be told apart with any kind of colour vision, and dashes
# without colour. Methods that are rarely compared share a colour.
LOOKS = {
    "dmsgd": ("#000000", "-"),
    "ef_sgd": ("#999999", "--"),
    "ef_momentum": ("#009E73", "-."),
    "dist_ef_sgdm": ("#999999", "-."),
    "double_squeeze": ("#006B4E", ":"),
    "demo": ("#000000", ":"),
    "dgc": ("#E69F00", "--"),
    "dgc_unmasked": ("#D55E00", ":"),
    "cser": ("#009E73", "--"),
    "def_sgd": ("#CC79A7", "-"),
    "def_a": ("#CC79A7", "--"),
    "saef": ("#E69F00", "-"),
    "gmc_server_momentum": ("#56B4E9", "-."),
    "gmc_rate_inside": ("#CC79A7", ":"),
    "gmc": ("#0072B2", "-"),
    "gmc_two_phase": ("#000000", "-."),
    "gmc_plus": ("#56B4E9", "-"),
    "ef21": ("#005321", "--"),
    "power_sgd": ("#005321", "-"),
    "one_bit_adam": ("#666666", "-"),
    "distributed_lion": ("#F0E442", "-."),
    "qsgd": ("#666666", "-."),
    "terngrad": ("#F0E442", ":"),
    "natural_compression": ("#005321", ":"),
    "quantised_sgd": ("#999999", "-"),
    "ternary_sgd": ("#CC79A7", "-."),
}
# The same method with several values of lambda; darker is larger.
LOOKS |= {
    f"{name}_{detach}": (to_hex(colormaps[shades](0.3 + 0.65 * detach)), dashes)
    for name, shades, dashes in (
        ("def_sgd", "Greens", "-."),
        ("def_a", "Oranges", "--"),
        ("gmc_plus", "Blues", "-"),
    )
    for detach in DETACHMENTS
}


LOOKS |= {
    "local_sgd": ("#D55E00", "--"),
    "post_local_sgd": ("#A04000", ":"),
    "double_averaging": ("#D55E00", "-."),
    "local_adam": ("#993F74", "--"),
    "bmuf": ("#006B4E", "--"),
    "lookahead": ("#E69F00", "-."),
    "diloco": ("#993F74", "-"),
    "muloco": ("#993F74", "-."),
    "easgd": ("#006B4E", "-."),
    "cocod_sgd": ("#E69F00", ":"),
    "overlap_local_sgd": ("#A04000", "--"),
    "qsparse_local_sgd": ("#A04000", "-."),
    "streaming_diloco": ("#993F74", ":"),
    "sparse_loco": ("#A04000", "-"),
    "local_gmc": ("#0072B2", "--"),
    "d_psgd": ("#666666", "--"),
    "qg_dsgdm": ("#006B4E", "-"),
    "choco_sgd": ("#0072B2", "-."),
    "dcd_psgd": ("#0072B2", ":"),
    "matcha": ("#666666", ":"),
    "d2": ("#009E73", "-"),
    "gradient_tracking": ("#009E73", ":"),
    "sgp": ("#56B4E9", "--"),
    "osgp": ("#56B4E9", ":"),
    "adam": ("#000000", "--"),
    "detached_optimizer": ("#7A1F1F", "-"),
    "sign_sgd": ("#F0E442", "--"),
    "signum": ("#F0E442", "-"),
    "ef_sign_sgd": ("#999999", ":"),
    "slowmo": ("#D55E00", "-"),
}
LOOKS |= {
    "adamw": ("#202020", "-"),
    "adamw_in_front": ("#B0B0B0", "--"),
    "adamw_behind": ("#B0B0B0", "-."),
    "adamw_detached": ("#C0508C", "-"),
    "adamw_power_sgd": ("#3C7A4E", "-"),
    "adamw_one_bit": ("#F0A830", "-"),
    "adamw_diloco": ("#7A2E5C", "-"),
    "adamw_streaming": ("#7A2E5C", ":"),
    "adamw_sparse_loco": ("#E07030", "-"),
    "adamw_gmc": ("#2A86C8", "--"),
    "muon_muloco": ("#20B08A", "-"),
}
# SlowMo over one inner optimizer with several slow momenta; darker is larger.
LOOKS |= {
    f"slowmo_{name}_{beta}": (to_hex(colormaps[shades](0.3 + 0.65 * beta)), "-")
    for name, shades in zip(
        BASES, ("Oranges", "RdPu", "PuBu", "Purples", "Greys", "YlGn"), strict=True
    )
    for beta in SLOW_MOMENTA
}


def draw(rows: Sequence[record.Row]) -> Figure:
    """Draws loss and accuracy against epochs and bytes, in four panels.

    The evaluation before the first step is left out. For several seeds, a line is the
    mean, and a band reaches from the least to the greatest value.

    Raises:
      ValueError: if there is no evaluation after a step.
    """
    measured = [row for row in rows if row["kind"] == "evaluation" and row["step"]]
    if not measured:
        raise ValueError(
            "there is nothing to draw yet: no method was evaluated after a step. Start "
            "the run again; it continues."
        )
    figure = Figure(figsize=(7.2, 5.4), dpi=200, layout="constrained")
    panels = figure.subplots(2, 2, sharex="col", sharey="row")
    for method in rows[0]["config"]["methods"]:
        points = [row for row in measured if row["method"] == method]
        if not points:
            continue
        colour, dashes = LOOKS.get(method, ("0.5", "-"))
        for quantity, line in zip(("loss", "accuracy"), panels, strict=True):
            for along, panel in zip(("epoch", "bytes"), line, strict=True):
                where = sorted({point[along] for point in points})
                seeds = [
                    [point[quantity] for point in points if point[along] == place]
                    for place in where
                ]
                panel.plot(
                    where,
                    [np.mean(values) for values in seeds],
                    color=colour,
                    linestyle=dashes,
                    label=label(method),
                )
                low, high = ([pick(values) for values in seeds] for pick in (min, max))
                panel.fill_between(where, low, high, color=colour, alpha=0.15, lw=0)
    (losses, _), (accuracies, sent) = panels
    losses.set(ylabel="training loss")
    shown = [row["loss"] for row in measured if 0 < row["loss"] < np.inf]
    if shown:  # A logarithmic axis needs a positive value.
        losses.set_yscale("log")
    losses.yaxis.set_major_formatter("{x:g}")
    wide = shown and max(shown) > 10 * min(shown)  # Minor labels would overlap.
    losses.yaxis.set_minor_formatter("" if wide else "{x:g}")
    accuracies.set(ylabel="test accuracy", xlabel="epochs")
    accuracies.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    sent.set(xlabel="bytes sent by a worker")
    if any(row["bytes"] for row in measured):  # A single worker sends nothing.
        sent.set_xscale("log")
    for panel in panels.flat:
        tidy(panel)
    legend(figure, losses, title(rows[0]), columns=3)
    return figure


def legend(
    figure: Figure, panel: Axes, title: str, columns: int, fontsize: str = "medium"
) -> None:
    """Puts a title and the labels of a panel's lines above all panels.

    The legend has fewer than `columns` columns if it would be wider than the figure.
    """
    for count in range(columns, 0, -1):
        made = figure.legend(
            *panel.get_legend_handles_labels(),
            loc="outside upper center",
            ncols=count,
            fontsize=fontsize,
            frameon=False,
            title=_broken(figure, title),
        )
        if count == 1 or made.get_window_extent().width <= figure.bbox.width:
            return
        made.remove()


def entitle(figure: Figure, title: str) -> None:
    """Puts a title above all panels of a figure without a legend."""
    figure.suptitle(_broken(figure, title), fontsize="medium")


def _broken(figure: Figure, title: str) -> str:
    return textwrap.fill(title, width=int(12 * figure.get_figwidth()))


def tidy(panel: Axes) -> None:
    """Gives a panel a pale grid, and removes its right and upper frame."""
    panel.grid(color="0.9", linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
