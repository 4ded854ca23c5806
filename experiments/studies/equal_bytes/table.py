"""Tables of losses at equal steps and at equal bytes, and of the rates behind them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rich.table import Table

from experiments.studies.equal_bytes.problems import REFERENCES
from experiments.training.methods import label
from experiments.training.record import Row
from experiments.training.table import percent
from experiments.utils.tables import narrow

BEST = 3
"""The number of losses in a column that are marked."""


class Line(NamedTuple):
    """What a method has reached on a problem, at its own rate.

    Attributes:
      rate: the learning rate at the start.
      losses: of each seed, at equal steps and at each budget, [seeds, 1 + budgets].
      accuracies: of each seed, at equal steps.
      share: the bytes of the whole training, relative to dense.
      steps: those of the whole training, and those that each budget allows.
    """

    rate: float
    losses: np.ndarray
    accuracies: Sequence[float]
    share: float
    steps: Sequence[int]

    @property
    def means(self) -> np.ndarray:
        """The mean over seeds, at equal steps and at each budget."""
        return self.losses.mean(axis=0)


def finite(loss: float | None) -> float:
    """A loss as it was before the log: null stands for one that is not finite."""
    return np.inf if loss is None or not np.isfinite(loss) else loss


def lines(rows: Sequence[Row]) -> dict[str, dict[str, Line]]:
    """The methods that are trained with all seeds at one rate, by problem."""
    header = rows[0]["config"]
    found: dict[str, dict[str, Line]] = {name: {} for name in header["problems"]}
    for problem, of_problem in found.items():
        for method in header["methods"]:
            trained: dict[float, list[Row]] = {}
            for row in rows:
                names = row.get("problem"), row.get("method")
                if row["kind"] == "training" and names == (problem, method):
                    trained.setdefault(row["rate"], []).append(row)
            complete = {
                rate: seeds
                for rate, seeds in trained.items()
                if len(seeds) == header["seeds"]
            }
            if not complete:
                continue
            # Several are complete if a seed diverged at the best one.
            rate = min(complete, key=lambda rate: _last(complete[rate]))
            seeds = complete[rate]
            of_problem[method] = Line(
                rate,
                np.array([[finite(loss) for loss in row["losses"]] for row in seeds]),
                [row["accuracy"] for row in seeds],
                seeds[0]["bytes"] / seeds[0]["dense_bytes"],
                seeds[0]["stops"],
            )
    return found


def _last(seeds: Sequence[Row]) -> float:
    return float(np.mean([finite(row["losses"][0]) for row in seeds]))


def _short(loss: float) -> str:
    """In seven characters at most, so that the table has 80 columns."""
    return f"{loss:.4f}" if loss >= 0.001 else f"{loss:.1e}".replace("e-0", "e-")


def names_of(found: dict[str, dict[str, Line]], methods: Sequence[str]) -> list[str]:
    """The methods that are finished on some problem, in the order of the run."""
    return [name for name in methods if any(name in each for each in found.values())]


def tables(rows: Sequence[Row]) -> list[Table]:
    """The losses, and the rates."""
    return [_losses(rows), _rates(rows)]


def _losses(rows: Sequence[Row]) -> Table:
    header, found = rows[0]["config"], lines(rows)
    budgets = [f"{share:.0%}" for share in header["budgets"]]
    shown = narrow(
        "method",
        f"Training loss at equal steps and at equal bytes, mean of {header['seeds']} "
        "seeds",
        "steps: after all steps of the training. 10%, 1%: after the last step in which "
        "a worker has sent no more than this share of the bytes that dense sends in "
        "the whole training; a method that sends less shows its last loss. Parameters "
        "that differ between workers are averaged for it. *: the "
        f"{BEST} least losses of a column, without those of the methods that send all.",
    )
    columns = [
        (name, column)
        for name in header["problems"]
        for column in range(1 + len(budgets))
    ]
    least = {}
    for name, column in columns:
        means = [
            line.means[column]
            for method, line in found[name].items()
            if method not in REFERENCES
        ]
        least[name, column] = sorted(filter(np.isfinite, means))[:BEST]
        heading = ["steps", *budgets][column]
        shown.add_column(f"{name}\n{heading}", justify="right", no_wrap=True)
    for method in names_of(found, header["methods"]):
        cells = []
        for name, column in columns:
            if method not in found[name]:
                cells.append("")
                continue
            loss = found[name][method].means[column]
            star = "*" if loss in least[name, column] else " "
            cells.append(f"{_short(loss)}{star}" if np.isfinite(loss) else "diverges")
        shown.add_row(label(method), *cells)
    return shown


def _rates(rows: Sequence[Row]) -> Table:
    header, found = rows[0]["config"], lines(rows)
    shown = narrow(
        "method",
        "Learning rates, bytes and test accuracy",
        "rate: of rates that differ by factors of "
        f"{header['rates_apart']:g}, the one with the least loss at equal steps for "
        "the first seed; the next best one if another seed diverges. bytes: of the "
        "whole training, relative to dense. accuracy: at equal steps, on test samples.",
    )
    for name in header["problems"]:
        for column in ("rate", "bytes", "accuracy"):
            shown.add_column(f"{name}\n{column}", justify="right", no_wrap=True)
    for method in names_of(found, header["methods"]):
        cells = []
        for of_problem in found.values():
            line = of_problem.get(method)
            cells += (
                [
                    f"{line.rate:g}",
                    f"{100 * line.share:.3g}%",
                    percent([float(np.mean(line.accuracies))]),
                ]
                if line
                else ["", "", ""]
            )
        shown.add_row(label(method), *cells)
    return shown
