"""Searches for the best learning rate on a grid that grows where its edge is best."""

from collections.abc import Callable

import numpy as np

APART = 3.0
"""The ratio of neighbouring rates."""
EXTENSIONS = 4
"""The most rates that are added to the first three."""


def best_rates(
    loss: Callable[[float], float], centre: float, apart: float = APART
) -> list[float]:
    """Orders `centre` and rates around it by their losses.

    The first rates are `centre`, `apart` times less and `apart` times more. While the
    best one is at an edge, the next rate beyond that edge is tried, at most four times.
    If all losses are infinite, smaller rates are tried.

    Args:
      loss: maps a rate to a loss; a loss that is not finite counts as infinite.
      centre: the rate in the middle.
      apart: the ratio of neighbouring rates.

    Returns:
      The rates with a finite loss, the best first; if there is none, the smallest rate.
    """

    def rate(place: int) -> float:
        return float(f"{centre * apart**place:.2g}")

    def at(place: int) -> float:
        found = loss(rate(place))
        return found if np.isfinite(found) else np.inf

    losses = {place: at(place) for place in (-1, 0, 1)}
    for _ in range(EXTENSIONS):
        best = min(sorted(losses), key=losses.__getitem__)
        if best == min(losses):
            beyond = best - 1
        elif best == max(losses):
            beyond = best + 1
        else:
            break
        losses[beyond] = at(beyond)
    ranked = sorted(sorted(losses), key=losses.__getitem__)
    finite = [rate(place) for place in ranked if losses[place] < np.inf]
    return finite or [rate(ranked[0])]
