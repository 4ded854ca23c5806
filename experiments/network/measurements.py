"""The rows of measurements: of one host, and of all hosts together."""

from collections.abc import Sequence

from experiments.network.counters import Traffic
from experiments.training.record import Row

FEWEST = 3
"""The fewest periods that are timed."""
MOST = 600
"""The most steps that are timed."""


def steps_for(seconds: float, budget: float, period: int = 1) -> int:
    """The number of steps that fit into a budget, in whole periods.

    Args:
      seconds: of one period.
      budget: seconds for all steps.
      period: in steps.

    Returns:
      At least `FEWEST` periods; otherwise at most `MOST` steps.
    """
    return max(FEWEST, min(round(budget / seconds), MOST // period)) * period


def of_one(
    traffic: Traffic | None,
    ends: Sequence[float],
    losses: Sequence[float],
    **sizes: float,
) -> Row:
    """Makes the row of one host.

    Args:
      traffic: bytes of all steps; None if the kernel does not count them.
      ends: seconds from the start to the end of each step.
      losses: of this host's workers, at each step.
      **sizes: bytes a worker and step, by other counts.
    """
    steps = len(ends)
    return {
        "steps": steps,
        "seconds": ends[-1] / steps,
        "out": None if traffic is None else traffic.out / steps,
        "into": None if traffic is None else traffic.into / steps,
        **sizes,
        "ends": [_short(end) for end in ends],
        "losses": [_short(loss) for loss in losses],
    }


def of_all(rows: Sequence[Row], shared_interface: bool) -> Row:
    """Makes one row of the rows of all hosts: the mean of their bytes and losses.

    Args:
      rows: one for each host.
      shared_interface: whether each host counted the bytes of all hosts.
    """
    parts = len(rows) ** 2 if shared_interface else len(rows)
    row = dict(rows[0])
    for direction in ("out", "into"):
        if row[direction] is not None:
            row[direction] = sum(other[direction] for other in rows) / parts
    losses = zip(*(other["losses"] for other in rows), strict=True)
    row["losses"] = [_short(sum(each) / len(each)) for each in losses]
    return row


def _short(number: float) -> float:
    return float(f"{number:.4g}")
