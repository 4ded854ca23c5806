"""The table of losses over ratios, periods and numbers of workers."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rich.table import Table

from experiments.studies.adam.candidates import CANDIDATES
from experiments.studies.equal_bytes.table import finite
from experiments.training.record import Row
from experiments.utils.tables import narrow

KIND = "under_adam"
"""The kind of a row of one training."""


class Reached(NamedTuple):
    """What a method has reached at its best rate.

    Attributes:
      rate: the learning rate at the start.
      losses: of each seed.
      share: the bytes of the training, relative to dense.
    """

    rate: float
    losses: Sequence[float]
    share: float

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return float(np.mean(self.losses))


def reached(rows: Sequence[Row]) -> dict[tuple[str, float, int, int], Reached]:
    """What was reached, by method, ratio, period and number of workers."""
    grids: dict[tuple[str, float, int, int], dict[float, dict[int, Row]]] = {}
    for row in rows:
        if row["kind"] == KIND:
            key = row["method"], row["ratio"], row["period"], row["workers"]
            grids.setdefault(key, {}).setdefault(row["rate"], {})[row["seed"]] = row
    found = {}
    for key, grid in grids.items():
        rate = min(grid, key=lambda rate: finite(grid[rate][0]["loss"]))
        seeds = grid[rate]
        losses = [finite(seeds[seed]["loss"]) for seed in sorted(seeds)]
        found[key] = Reached(rate, losses, seeds[0]["bytes"] / seeds[0]["dense_bytes"])
    return found


def tables(rows: Sequence[Row]) -> list[Table]:
    """One table: a line for a method, a ratio and a period."""
    header, found = rows[0]["config"], reached(rows)
    shown = narrow(
        "method",
        f"Training loss after {header['problem']['steps']} steps, mean of "
        f"{header['seeds']} seeds",
        "ratio: entries of a message; with values in 2 bits, four times as many. "
        "/12: a message every 12 steps. bytes: of a worker in the whole training, "
        "relative to dense. ±: half of the range of the seeds. rate: of rates that "
        f"differ by factors of {header['rates_apart']:g}, the best one for the first "
        "seed and the first number of workers. Losses without ± are of one seed.",
    )
    shown.padding = 0  # Six columns have to fit 80 characters.
    for name in ("ratio", "bytes"):
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("rate", justify="right", no_wrap=True)
    for workers in header["workers"]:
        shown.add_column(f"loss\nK={workers}", justify="right", no_wrap=True)
    names = list(CANDIDATES)
    keys = list(dict.fromkeys(key[:3] for key in found))
    keys.sort(key=lambda key: names.index(key[0]) if key[0] in names else len(names))
    for method, ratio, period in keys:
        of_workers = [
            found.get((method, ratio, period, workers)) for workers in header["workers"]
        ]
        label = CANDIDATES[method].label if method in CANDIDATES else method
        first = next(each for each in of_workers if each)
        shown.add_row(
            f"{label} /{period}" if period > 1 else label,
            f"{100 * ratio:g}%",
            f"{100 * first.share:.3g}%",
            f"{first.rate:.2g}",
            *map(_cell, of_workers),
        )
    return [shown]


def _cell(each: Reached | None) -> str:
    if each is None:
        return ""
    if not np.isfinite(each.mean):
        return "diverges"
    if len(each.losses) == 1:
        return f"{each.mean:.3f}"
    return f"{each.mean:.3f} ±{np.ptp(each.losses) / 2:.3f}"
